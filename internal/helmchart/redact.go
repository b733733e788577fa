package helmchart

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// redacted marks redacted text while other secrets are searched for: no message contains a NUL.
const redacted = "\x00"

// redact replaces the values of Secrets in a message.
func redact(message string, secrets []string) string {
	// A longer value may contain a shorter one.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) })
	for _, s := range secrets {
		quoted := strconv.Quote(s)
		for _, form := range []string{s, quoted[1 : len(quoted)-1], strings.Join(strings.Fields(s), " ")} {
			if len(form) > 3 {
				message = strings.ReplaceAll(message, form, redacted)
				continue
			}
			message = replaceWord(message, form, redacted)
		}
	}
	return strings.ReplaceAll(message, redacted, "(from a Secret)")
}

// replaceWord replaces a short text where it is a word of its own.
func replaceWord(message, word, with string) string {
	if word == "" {
		return message
	}
	letter := func(b byte) bool {
		return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
	}
	var out strings.Builder
	for i := 0; i < len(message); {
		end := i + len(word)
		if strings.HasPrefix(message[i:], word) && (i == 0 || !letter(message[i-1])) && (end == len(message) || !letter(message[end])) {
			out.WriteString(with)
			i = end
			continue
		}
		out.WriteByte(message[i])
		i++
	}
	return out.String()
}
