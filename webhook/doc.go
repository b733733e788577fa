// Package webhook is the HTTP side of the admission webhooks: it decodes an AdmissionReview, evaluates the rules or the
// mutators, and writes the response. What cannot be evaluated is allowed, unless the policy decides otherwise.
package webhook
