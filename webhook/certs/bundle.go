package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// maxCAs bounds a bundle. A CA more is added for each rotation and leaves when it expires; this bounds what a Secret that is deleted again
// and again can do.
const maxCAs = 8

// parseBundle returns the certificates in a PEM bundle and passes over whatever else is in it.
func parseBundle(bundle []byte) []*x509.Certificate {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return out
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			out = append(out, c)
		}
	}
}

// mergeBundle returns the bundle with ca added and what has expired left out. Unexpired CAs stay: another replica may still be serving a
// certificate of theirs. Replicas that merge the same CAs come to the same bundle, byte for byte.
func mergeBundle(bundle []byte, ca *x509.Certificate, now time.Time) []byte {
	var all []*x509.Certificate
	for _, c := range parseBundle(bundle) {
		if now.Before(c.NotAfter) && !c.Equal(ca) && !slices.ContainsFunc(all, c.Equal) {
			all = append(all, c)
		}
	}
	byAge := func(a, b *x509.Certificate) int {
		if d := a.NotBefore.Compare(b.NotBefore); d != 0 {
			return d
		}
		return bytes.Compare(a.Raw, b.Raw)
	}
	slices.SortFunc(all, byAge)
	if len(all) >= maxCAs {
		all = all[len(all)-maxCAs+1:]
	}
	all = append(all, ca)
	slices.SortFunc(all, byAge)
	var out bytes.Buffer
	for _, c := range all {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return out.Bytes()
}
