package main

import (
	"fmt"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// newLogger returns a logger that writes to standard error, and makes the Kubernetes libraries log to it.
func newLogger(level, format string) (logr.Logger, error) {
	var l zapcore.Level
	if err := l.Set(level); err != nil {
		return logr.Logger{}, fmt.Errorf("--log-level %q must be debug, info, warn or error", level)
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
		return logr.Logger{}, fmt.Errorf("--log-format %q must be json or console", format)
	}
	config.Level = zap.NewAtomicLevelAt(l)
	config.DisableStacktrace = true
	// No line about a review may be lost; by default, the same message is dropped after 100 per second.
	config.Sampling = nil
	z, err := config.Build()
	if err != nil {
		return logr.Logger{}, fmt.Errorf("creating the logger: %w", err)
	}
	log := zapr.NewLogger(z)
	ctrl.SetLogger(log)
	klog.SetLogger(log)
	return log, nil
}
