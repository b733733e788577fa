package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"time"
)

// maxCAs limits a caBundle. Each rotation adds a CA, which is removed when it expires; the limit is for a Secret that
// is deleted again and again.
const maxCAs = 8

// parseCABundle returns the certificates in a PEM bundle and ignores everything else in it.
func parseCABundle(bundle []byte) []*x509.Certificate {
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

// mergeCABundle returns the bundle with ca and without expired CAs. Other CAs stay: another replica may still serve one
// of their certificates. Replicas that merge the same CAs write the same bytes.
func mergeCABundle(bundle []byte, ca *x509.Certificate, now time.Time) []byte {
	var all []*x509.Certificate
	for _, c := range parseCABundle(bundle) {
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
