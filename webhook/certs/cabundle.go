package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"time"
)

const (
	// maxCAs limits a caBundle. Each rotation adds a CA; the limit is for a Secret that is deleted again and again.
	maxCAs = 8
	// caName is the common name of a self-managed CA.
	caName = "flux-admission-ca"
	// overlap is how long two CAs are in the caBundle after a rotation. The other replicas serve certificates of the new
	// one long before.
	overlap = time.Hour
	// maxClockSkew is how far in the future the clock of another replica may be.
	maxClockSkew = 5 * time.Minute
)

// Fingerprint returns the SHA-256 fingerprint of a certificate, in hexadecimal.
func Fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// CABundle returns a caBundle with a CA alone, as the webhook server writes it.
func CABundle(ca *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
}

// ParseCABundle returns the certificates in a PEM bundle and ignores everything else in it.
func ParseCABundle(bundle []byte) []*x509.Certificate {
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

// mergeCABundle returns the bundle with ca. Of the others, those that may be in use during a rotation stay: another
// replica may still serve one of their certificates, or may have read a newer CA from the Secret than this one. Replicas
// that merge the same CAs write the same bytes.
func mergeCABundle(bundle []byte, ca *x509.Certificate, now time.Time) []byte {
	var all []*x509.Certificate
	for _, c := range ParseCABundle(bundle) {
		if inUse(c, ca, now) && !c.Equal(ca) && !slices.ContainsFunc(all, c.Equal) {
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
		out.Write(CABundle(c))
	}
	return out.Bytes()
}

// inUse reports whether a replica may serve certificates of a CA other than the current one: it looks like one that
// this product made, is valid, and one of the two is new. A CA that somebody else put into the caBundle, or one that was
// replaced because its key has leaked, would otherwise be trusted until it expires.
func inUse(c, current *x509.Certificate, now time.Time) bool {
	newest := c.NotBefore
	if current.NotBefore.After(newest) {
		newest = current.NotBefore
	}
	return c.IsCA && c.Subject.CommonName == caName && c.CheckSignatureFrom(c) == nil &&
		now.Before(c.NotAfter) && c.NotBefore.Before(now.Add(maxClockSkew)) && now.Before(newest.Add(overlap))
}
