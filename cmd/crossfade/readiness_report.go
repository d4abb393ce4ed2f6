package main

import (
	"context"

	"crossfade/rollout/readiness"
)

func reportName(string) error                { return nil }
func (p *program) verifyReport(string) error { return nil }
func (p *program) writeEvidence(context.Context, assessments, readiness.Report, string) error {
	return nil
}
