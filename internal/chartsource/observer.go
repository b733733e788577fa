package chartsource

import "time"

// Outcome is the outcome of a lookup or a fetch, for metrics: one of a few constants.
type Outcome string

// The outcomes.
const (
	OutcomeLocal   Outcome = "local"   // found in Options.Dirs
	OutcomeHit     Outcome = "hit"     // cached
	OutcomeStale   Outcome = "stale"   // cached, and fetched again in the background
	OutcomeFetched Outcome = "fetched" // fetched while the review waited
	OutcomeDisk    Outcome = "disk"    // read from Options.CacheDir after a restart
	OutcomeAbsent  Outcome = "absent"  // does not exist
	OutcomeTimeout Outcome = "timeout" // not fetched in time
	OutcomeError   Outcome = "error"   // the source could not be read
)

// Observer receives events of a Resolver. Its methods must return soon and be safe for concurrent use.
type Observer interface {
	// Resolved is called once for every lookup of a chart. Kind is the source's, or "other" for kinds that Flux does not
	// have.
	Resolved(kind string, outcome Outcome)
	// Fetched is called after a chart was fetched or could not be fetched.
	Fetched(kind string, outcome Outcome, duration time.Duration)
	// Cached is called when the cache has changed.
	Cached(charts int, bytes int64)
}

type noObserver struct{}

func (noObserver) Resolved(string, Outcome)               {}
func (noObserver) Fetched(string, Outcome, time.Duration) {}
func (noObserver) Cached(int, int64)                      {}

// kindLabel returns the kind of a source, or "other" for a kind that Flux does not have: a user's text is no metric
// label.
func kindLabel(kind string) string {
	switch kind {
	case "HelmRepository", "HelmChart", "OCIRepository", "GitRepository", "Bucket", "ExternalArtifact":
		return kind
	}
	return "other"
}
