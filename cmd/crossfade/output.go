package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// output is how a result is written.
type output struct {
	format  string
	allowed []string
}

// outputFlag adds -o with the formats that a command knows; the first one is
// the default.
func outputFlag(c *cobra.Command, allowed ...string) *output {
	o := &output{allowed: allowed}
	c.Flags().StringVarP(&o.format, "output", "o", allowed[0], strings.Join(allowed, "|"))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// check returns a usage error for a format that is not allowed.
func (o *output) check() error {
	if slices.Contains(o.allowed, o.format) {
		return nil
	}
	return usage("-o %s: use one of %s", o.format, strings.Join(o.allowed, ", "))
}

// table is a result as rows of text, the first one the header.
type table [][]string

// write writes value as JSON or YAML, or rows as a table.
func (o *output) write(w io.Writer, value any, rows table) error {
	switch o.format {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(value)
	case "yaml":
		// By way of JSON, so that both have the same keys.
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		var plain any
		if err := yaml.Unmarshal(text, &plain); err != nil {
			return err
		}
		enc := yaml.NewEncoder(w)
		enc.SetIndent(2)
		if err := enc.Encode(plain); err != nil {
			return err
		}
		return enc.Close()
	case "markdown":
		return rows.markdown(w)
	default:
		return rows.text(w)
	}
}

func (t table) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, row := range t {
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

func (t table) markdown(w io.Writer) error {
	for i, row := range t {
		cells := make([]string, len(row))
		for j, cell := range row {
			cells[j] = strings.ReplaceAll(cell, "|", `\|`)
		}
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")); err != nil {
			return err
		}
		if i == 0 {
			if _, err := fmt.Fprintf(w, "|%s\n", strings.Repeat(" --- |", len(row))); err != nil {
				return err
			}
		}
	}
	return nil
}
