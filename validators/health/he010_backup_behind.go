package health

import (
	"context"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/flux-admission/flux-admission/api/v1alpha1"
	"github.com/flux-admission/flux-admission/validators"
)

// The kinds of Velero and VolSync.
var (
	scheduleKind          = schema.GroupKind{Group: "velero.io", Kind: "Schedule"}
	backupLocationKind    = schema.GroupKind{Group: "velero.io", Kind: "BackupStorageLocation"}
	replicationSourceKind = schema.GroupKind{Group: "volsync.backube", Kind: "ReplicationSource"}
)

// BackupBehind is the rule backup-behind.
//
// Velero writes the time of the last backup that a Schedule started, and VolSync the time of the next one: a backup that was due and did
// not begin waits behind something. Whether a single backup failed is in its own status. Velero sets a location to
// Unavailable at each failed validation, without the time since when; none of its backups can run then. A paused schedule, one that
// Velero has not validated yet, and a source without a schedule wait for nothing.
var BackupBehind = &validators.Rule{
	Meta: validators.Meta{
		ID:        "HE010",
		Name:      "backup-behind",
		Scope:     validators.Scope{Kinds: []schema.GroupKind{scheduleKind, backupLocationKind, replicationSourceKind}},
		Stages:    validators.StageAudit,
		Component: Component,
		Severity:  validators.SeverityError,
		Defaults:  validators.Defaults{Audit: v1alpha1.ActionWarn},
		Doc: validators.Doc{
			Title: "Backup is behind its schedule",
			Why: "A backup that does not run, or whose location is unavailable, is noticed when it is needed. Its controller retries " +
				"quietly, and Flux finds the objects as they should be.",
			Fix:   "Read the log of Velero or of the mover of VolSync, and repair the location, the credentials or the volume.",
			Since: "v0.1.0",
		},
		Params: after(24 * time.Hour),
	},
	Check: func(_ context.Context, p *validators.Pass) error {
		switch p.Object.GroupVersionKind().GroupKind() {
		case scheduleKind:
			checkSchedule(p)
		case backupLocationKind:
			if text(p.Object, "status", "phase") == "Unavailable" {
				reportPhase(p, "the location is unavailable")
			}
		case replicationSourceKind:
			checkReplication(p)
		}
		return nil
	},
}

// maxOffset is how far a time zone is from UTC at most.
const maxOffset = 14 * time.Hour

// reportPhase reports status.phase with status.message.
func reportPhase(p *validators.Pass, what string) {
	f := p.Report(validators.NewPath("status", "phase"), nil, "%s", what)
	if message := text(p.Object, "status", "message"); message != "" {
		f.Message += ": " + short(message)
	}
	f.Key = "phase"
}

// checkSchedule reports a Schedule of Velero that is invalid, or whose backup is overdue.
func checkSchedule(p *validators.Pass) {
	if isTrue(p.Object, "spec", "paused") {
		return
	}
	switch text(p.Object, "status", "phase") {
	case "FailedValidation":
		reportPhase(p, "Velero does not accept the schedule")
	case "Enabled":
		schedule, err := cron.ParseStandard(text(p.Object, "spec", "schedule"))
		if err != nil {
			return
		}
		last := parseTime(text(p.Object, "status", "lastBackup"))
		began := p.Object.GetCreationTimestamp().Time
		for _, t := range []time.Time{last, parseTime(text(p.Object, "status", "lastSkipped"))} {
			if t.After(began) {
				began = t
			}
		}
		if began.IsZero() {
			return
		}
		// Velero reads the schedule in the time zone of its Pod, which is not known.
		due := schedule.Next(began.UTC())
		if !p.Elapsed(due, max(p.Params.(*AfterParams).after, maxOffset)) {
			return
		}
		f := p.Report(validators.NewPath("spec", "schedule"), nil, "the backup that was due at %s has not begun", stamp(due))
		if !last.IsZero() {
			f.Message += "; the last one began at " + stamp(last)
		}
		f.Key = "due"
	}
}

// checkReplication reports a ReplicationSource of VolSync whose last run failed, or whose next one is overdue.
func checkReplication(p *validators.Pass) {
	if isTrue(p.Object, "spec", "paused") {
		return
	}
	due := parseTime(text(p.Object, "status", "nextSyncTime"))
	if text(p.Object, "spec", "trigger", "schedule") == "" || !p.Elapsed(due, p.Params.(*AfterParams).after) {
		return
	}
	f := p.Report(validators.NewPath("status", "nextSyncTime"), nil, "the backup that was due at %s has not ended", stamp(due))
	if last := parseTime(text(p.Object, "status", "lastSyncTime")); !last.IsZero() {
		f.Message += "; the last one ended at " + stamp(last)
	}
	if text(p.Object, "status", "latestMoverStatus", "result") == "Failed" {
		f.Message += "; the last run of the mover failed"
	}
	f.Key = "due"
}
