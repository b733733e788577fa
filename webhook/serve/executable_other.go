//go:build !linux

package serve

// unmapExecutable does nothing: other systems do not count the pages of an executable as memory of a container.
func unmapExecutable() error { return nil }
