package webhook

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"sigs.k8s.io/json"
)

// maxFast is the deepest nesting that the fast decoder reads.
const maxFast = 1000

// decodeFast decodes a JSON text as sigs.k8s.io/json does into an any, with integers as int64, in a third of the time: it reads the
// text once, and strings are parts of it. It returns false for a text that it does not decode: one that is no JSON, is nested
// deeper than maxFast, or defines a key twice.
func decodeFast(text string) (any, bool) {
	d := fastDecoder{text: text}
	v, ok := d.value(maxFast)
	if d.space(); d.at < len(text) {
		return nil, false
	}
	return v, ok
}

type fastDecoder struct {
	text string
	at   int // the index of the next byte
}

// space skips white space, and returns the next byte; 0 at the end.
func (d *fastDecoder) space() byte {
	for ; d.at < len(d.text); d.at++ {
		switch c := d.text[d.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

func (d *fastDecoder) value(deepest int) (any, bool) {
	switch c := d.space(); {
	case c == '"':
		return d.string()
	case c == '{' && deepest > 0:
		return d.object(deepest - 1)
	case c == '[' && deepest > 0:
		return d.array(deepest - 1)
	case c == 't':
		return true, d.literal("true")
	case c == 'f':
		return false, d.literal("false")
	case c == 'n':
		return nil, d.literal("null")
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	}
	return nil, false
}

func (d *fastDecoder) literal(text string) bool {
	if !strings.HasPrefix(d.text[d.at:], text) {
		return false
	}
	d.at += len(text)
	return true
}

// object decodes an object from its opening brace.
func (d *fastDecoder) object(deepest int) (any, bool) {
	out, keys := map[string]any{}, 0
	d.at++
	if d.space() == '}' {
		d.at++
		return out, true
	}
	for {
		if d.space() != '"' {
			return nil, false
		}
		key, ok := d.string()
		if !ok || d.space() != ':' {
			return nil, false
		}
		d.at++
		v, ok := d.value(deepest)
		if !ok {
			return nil, false
		}
		out[key] = v
		keys++
		next := d.space()
		d.at++
		switch {
		case next == ',':
		case next == '}' && keys == len(out):
			return out, true
		default:
			return nil, false
		}
	}
}

// array decodes an array from its opening bracket.
func (d *fastDecoder) array(deepest int) (any, bool) {
	out := []any{}
	d.at++
	if d.space() == ']' {
		d.at++
		return out, true
	}
	for {
		v, ok := d.value(deepest)
		if !ok {
			return nil, false
		}
		out = append(out, v)
		next := d.space()
		d.at++
		switch next {
		case ',':
		case ']':
			return out, true
		default:
			return nil, false
		}
	}
}

// string decodes a string from its opening quote. A plain one is a part of the text.
func (d *fastDecoder) string() (string, bool) {
	start := d.at + 1
	ascii := true
	for i := start; i < len(d.text); i++ {
		switch c := d.text[i]; {
		case c == '"':
			d.at = i + 1
			s := d.text[start:i]
			if ascii || utf8.ValidString(s) {
				return s, true
			}
			return d.unquote(start - 1)
		case c == '\\':
			for i += 2; i < len(d.text) && d.text[i] != '"'; i++ {
				if d.text[i] == '\\' {
					i++
				}
			}
			if i >= len(d.text) {
				return "", false
			}
			d.at = i + 1
			return d.unquote(start - 1)
		case c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

// unquote decodes the string between an index and the current one with the library.
func (d *fastDecoder) unquote(start int) (string, bool) {
	var s string
	err := json.UnmarshalCaseSensitivePreserveInts([]byte(d.text[start:d.at]), &s)
	return s, err == nil
}

// number decodes a number. The library decodes what is no short integer.
func (d *fastDecoder) number() (any, bool) {
	start := d.at
	for ; d.at < len(d.text); d.at++ {
		if c := d.text[d.at]; (c < '0' || c > '9') && c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' {
			break
		}
	}
	text := d.text[start:d.at]
	if first := text[0]; len(text) < 19 && (first > '0' || len(text) == 1 && first == '0') {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return n, true
		}
	}
	var v any
	err := json.UnmarshalCaseSensitivePreserveInts([]byte(text), &v)
	return v, err == nil
}
