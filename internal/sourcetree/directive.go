package sourcetree

import "bytes"

// directive is the start of the text of a comment that is meant for this program.
var directive = []byte("flux-admission:")

// marker is the start of the text of a marker of image-automation-controller.
var marker = []byte("$image")

// HasMarker reports whether a text may have a marker of image-automation-controller.
func HasMarker(data []byte) bool { return bytes.Contains(data, marker) }

// HasDirective reports whether a text may have a comment that is meant for this program.
func HasDirective(data []byte) bool { return bytes.Contains(data, directive) }
