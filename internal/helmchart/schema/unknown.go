package schema

// Unknown is a value that cannot be determined: it may be any value.
type Unknown struct {
	// MayVanish means that the key itself may be missing.
	MayVanish bool
}

// Open is an object of which only some keys are known: it may have others.
type Open map[string]any

// state is the validity of a value, over all values that its unknown parts may have.
type state uint8

const (
	valid   state = iota // valid whatever the unknown parts are
	maybe                // depends on the unknown parts
	invalid              // invalid whatever the unknown parts are
)

// and is the state of a value that two schemas apply to.
func and(a, b state) state { return max(a, b) }

// negate is the state of "not".
func negate(s state) state { return invalid - s }
