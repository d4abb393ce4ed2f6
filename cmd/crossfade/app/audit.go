package app

import (
	"cmp"
	"io"
	"os"

	"crossfade/config"
	"crossfade/gateway/audit"
)

// openAudit opens the audit trail of a configuration; nil without one. Its
// heads go to a Redis that outlives this process, or nowhere.
func (a *App) openAudit(c *config.Config) (*audit.Trail, error) {
	if c.Audit.Off() {
		return nil, nil
	}
	o := audit.Options{
		File: string(c.Audit.File), MaxSize: int64(c.Audit.MaxSize), MaxAge: c.Audit.MaxAge,
		Parameters: c.Audit.Parameters, Version: a.options.Version,
		OnResult: a.telemetry.AuditRecords,
		Report:   func(err error) { report(a.log, "audit trail", err) },
	}
	if c.Audit.Stdout {
		o.Stdout = cmp.Or[io.Writer](a.options.Stdout, os.Stdout)
	}
	if heads, ok := a.store.Store.(audit.Heads); ok && (!c.Redis.InProcess() || a.options.Store != nil) {
		o.Heads = heads
	}
	return audit.New(o)
}

// auditName says where the audit trail goes; "off" if nowhere.
func auditName(c *config.Config) string {
	switch {
	case c.Audit.Off():
		return "off"
	case c.Audit.File == "":
		return "stdout"
	case c.Audit.Stdout:
		return string(c.Audit.File) + " and stdout"
	default:
		return string(c.Audit.File)
	}
}
