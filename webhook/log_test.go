package webhook_test

import (
	"io"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// writerFunc is a writer that calls a function and drops the data.
type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) {
	f()
	return len(p), nil
}

// logTo returns a logger like that of the binary, which writes to w.
func logTo(w io.Writer) logr.Logger {
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(w)), zapcore.DebugLevel)
	return zapr.NewLogger(zap.New(core))
}
