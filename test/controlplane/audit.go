package controlplane

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// AuditEvents returns what the API server recorded so far, oldest first: one
// event for each write, with the annotations that webhooks gave it. The API
// server records a write before it answers it. It is an error to ask a control
// plane that was started without Options.Audit.
func (cp *ControlPlane) AuditEvents() ([]auditv1.Event, error) {
	if cp.audit == "" {
		return nil, errors.New("reading the audit log: the control plane was started without Options.Audit")
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
			return nil, fmt.Errorf("reading the audit log, event %d: %w", len(events)+1, err)
		}
		events = append(events, event)
	}
	return events, nil
}
