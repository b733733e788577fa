package chartsource

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/flux-admission/flux-admission/validators"
)

// join makes one key of several parts.
func join(parts ...string) string { return strings.Join(parts, "\x00") }

// valuesKey identifies the values files of a reference.
func valuesKey(ref validators.ChartRef) string {
	return join(append(slices.Clone(ref.ValuesFiles), fmt.Sprint(ref.IgnoreMissingValuesFiles))...)
}

// cacheKey identifies a chart by the SHA-256 of its archive in hex and by the values files that are merged into it.
func cacheKey(sum string, ref validators.ChartRef) string { return join(sum, valuesKey(ref)) }

// parseCacheKey is the reverse of cacheKey; false for another key.
func parseCacheKey(key string) (sum string, ref validators.ChartRef, ok bool) {
	parts := strings.Split(key, "\x00")
	if len(parts) < 2 || len(parts[0]) != hex.EncodedLen(sha256.Size) {
		return "", ref, false
	}
	ref.ValuesFiles, ref.IgnoreMissingValuesFiles = parts[1:len(parts)-1], parts[len(parts)-1] == "true"
	return parts[0], ref, true
}
