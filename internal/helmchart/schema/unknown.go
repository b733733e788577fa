package schema

// Unknown stands for a value that is not known: any value could stand there.
type Unknown struct {
	// MayVanish tells that the key itself may be missing.
	MayVanish bool
}

// Open is an object of which only some keys are known: others may be there.
type Open map[string]any

// state is what can be said of a value, or of all values that it may turn out to be.
type state uint8

const (
	valid   state = iota // every completion is valid
	maybe                // some completions are valid
	invalid              // no completion is valid
)

// and is the state of two demands on the same value.
func and(a, b state) state { return max(a, b) }

// negate is the state of "not".
func negate(s state) state { return invalid - s }
