package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// AuditEvents returns the writes that the API server recorded so far, oldest
// first, with the annotations that webhooks gave them. The API server records
// a write before it answers it. It is an error to ask a control plane that was
// started without Options.Audit.
func (cp *ControlPlane) AuditEvents() ([]auditv1.Event, error) {
	return cp.events(func(e *auditv1.Event) bool { return slices.Contains(writes, e.Verb) })
}

// CallsOf returns all that the user of Options.AuditUser did so far, reads
// included, oldest first.
func (cp *ControlPlane) CallsOf(user string) ([]auditv1.Event, error) {
	return cp.events(func(e *auditv1.Event) bool { return e.User.Username == user })
}

// writes are the requests that change something.
var writes = []string{"create", "update", "patch", "delete", "deletecollection"}

func (cp *ControlPlane) events(want func(*auditv1.Event) bool) ([]auditv1.Event, error) {
	if cp.audit == "" {
		return nil, errors.New("reading the audit log: the control plane was started without Options.Audit and AuditUser")
	}
	data, err := os.ReadFile(cp.audit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the audit log: %w", err)
	}
	// A line that is still being written has no end yet.
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	var events []auditv1.Event
	for line := range bytes.Lines(data) {
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			return nil, fmt.Errorf("reading the audit log, an event after %d: %w", len(events), err)
		}
		if want(&event) {
			events = append(events, event)
		}
	}
	return events, nil
}
