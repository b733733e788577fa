//go:build !race

package chartsource_test

// raceDetector reports whether the race detector is on.
const raceDetector = false
