{{/* A file of manifests, with the namespace of the release. Arguments: the root context and the name of the file. */}}
{{- define "flux-admission.file" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (printf "files/%s" (index . 1)) | replace "flux-admission-system" $root.Release.Namespace -}}
{{- end -}}

{{/* The image, by digest where one is given. */}}
{{- define "flux-admission.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/*
A webhook configuration with what strict and certManager change of it. Arguments: the root context and the name of the file.
The first webhook is the one for objects; that for policies never blocks a repair of the policy.
*/}}
{{- define "flux-admission.webhooks" -}}
{{- $root := index . 0 -}}
{{- $o := include "flux-admission.file" . | fromYaml -}}
{{- if $root.Values.strict -}}
{{- $_ := set (first $o.webhooks) "failurePolicy" "Fail" -}}
{{- end -}}
{{- if $root.Values.certManager.enabled -}}
{{- $_ := set $o.metadata "annotations" (dict "cert-manager.io/inject-ca-from" (printf "%s/flux-admission" $root.Release.Namespace)) -}}
{{- end -}}
{{- if eq $o.kind "MutatingWebhookConfiguration" -}}
{{- $selected := first (first $o.webhooks).namespaceSelector.matchExpressions -}}
{{- $_ := set $selected "values" $root.Values.injectTargetNamespace.namespaces -}}
{{- end -}}
{{- toYaml $o -}}
{{- end -}}
