//go:build !linux

package serve

import "errors"

func releaseExecutable() (int64, error) {
	return 0, errors.New("releasing pages of the executable needs Linux")
}
