package main

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestTheThreatModelLeadsToTheCodeThatHolds finds links that lead nowhere since
// something was renamed.
func TestTheThreatModelLeadsToTheCodeThatHolds(t *testing.T) {
	const dir = "../../.github"
	links := regexp.MustCompile(`\]\((\.\./[^)#]+)\)`).FindAllStringSubmatch(read(t, filepath.Join(dir, "SECURITY.md")), -1)
	if len(links) < 20 {
		t.Errorf("there are %d links", len(links))
	}
	for _, link := range links {
		if _, err := os.Stat(filepath.Join(dir, link[1])); err != nil {
			t.Error(err)
		}
	}
}
