package main

import (
	"fmt"
	stdlog "log"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// newLogger returns a logger that writes to standard error, and routes what the Kubernetes libraries log to it.
func newLogger(level, format string) (logr.Logger, error) {
	var l zapcore.Level
	if err := l.Set(level); err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %q is not a level: use debug, info, warn or error", level)
	}
	config := zap.NewProductionConfig()
	switch format {
	case "json":
		config.EncoderConfig.EncodeTime = zapcore.RFC3339TimeEncoder
		config.EncoderConfig.TimeKey = "time"
	case "console":
		config.Encoding = "console"
		config.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	default:
		return logr.Logger{}, fmt.Errorf("--log-format %q is not known: use json or console", format)
	}
	config.Level = zap.NewAtomicLevelAt(l)
	config.DisableStacktrace = true
	// A line a review must not be lost; the default drops the same message after a hundred a second.
	config.Sampling = nil
	z, err := config.Build()
	if err != nil {
		return logr.Logger{}, fmt.Errorf("making a logger: %w", err)
	}
	log := zapr.NewLogger(z)
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	return log, nil
}

// standardLog gives what net/http logs, failed TLS handshakes mostly, the debug level.
func standardLog(log logr.Logger) *stdlog.Logger {
	return stdlog.New(writer{log}, "", 0)
}

type writer struct{ log logr.Logger }

func (w writer) Write(p []byte) (int, error) {
	w.log.V(1).Info("http server", "message", string(p))
	return len(p), nil
}
