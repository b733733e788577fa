package cnpg

import (
	"testing"

	"github.com/flux-admission/flux-admission/test/ruletest"
)

func TestMonitoringEnabled(t *testing.T) { ruletest.Run(t, MonitoringEnabled, nil) }
