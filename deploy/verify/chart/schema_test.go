package chart_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// definitions are the parts of values.schema.json that come from the gateway's own
// types, with the type of each.
var definitions = map[string]string{"config": "Config", "team": "TeamFile", "principals": "map[string]Principal", "roles": "Roles"}

// TestTheSchemaKnowsTheKeysOfTheConfiguration: the keys of crossfade.yaml and of the
// files beside it stand in the struct tags of the package config, and in the chart's
// schema as they stand there. -update writes them.
func TestTheSchemaKnowsTheKeysOfTheConfiguration(t *testing.T) {
	file := filepath.Join(chart, "values.schema.json")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	types := readTypes(t, filepath.Join(repository, "config"))
	generated := map[string]any{}
	for name, of := range definitions {
		expr, err := parser.ParseExpr(of)
		if err != nil {
			t.Fatal(err)
		}
		generated[name] = types.schema(expr, nil)
	}
	const begin = "\n  \"$defs\": "
	head, _, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatalf("%s has no $defs", file)
	}
	var defs bytes.Buffer
	encode := json.NewEncoder(&defs)
	encode.SetEscapeHTML(false)
	encode.SetIndent("  ", "  ")
	if err := encode.Encode(generated); err != nil {
		t.Fatal(err)
	}
	want := head + begin + defs.String() + "}\n"
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("%s does not say what config does: run make chart and commit\n%s", file, diff)
	}
}

// goTypes are the structs and other types of a package, by name.
type goTypes struct {
	types map[string]ast.Expr
	// short are the structs that a single text may stand for.
	short map[string]bool
}

func readTypes(t *testing.T, dir string) goTypes {
	t.Helper()
	g := goTypes{types: map[string]ast.Expr{}, short: map[string]bool{}}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				g.types[n.Name.Name] = n.Type
			case *ast.FuncDecl:
				if n.Name.Name == "short" { // of schema.go: a switch on reflect.TypeFor[X]()
					ast.Inspect(n.Body, func(n ast.Node) bool {
						if i, ok := n.(*ast.IndexExpr); ok {
							if of, ok := i.Index.(*ast.Ident); ok {
								g.short[of.Name] = true
							}
						}
						return true
					})
				}
			}
			return true
		})
	}
	if len(g.short) < 5 || g.types["Config"] == nil {
		t.Fatalf("%s is not the package that it was: %v", dir, g.short)
	}
	return g
}

// schema is what may stand for a value of a type, as far as its shape goes; what a
// value means is left to the gateway. words are those that are allowed.
func (g goTypes) schema(of ast.Expr, words []string) map[string]any {
	scalar := func(kinds ...string) map[string]any { return map[string]any{"type": kinds} }
	switch of := of.(type) {
	case *ast.StarExpr: // *url.URL
		return scalar("string")
	case *ast.SelectorExpr: // time.Duration, time.Time, netip.Prefix
		return scalar("string")
	case *ast.ArrayType:
		items := g.schema(of.Elt, words)
		kinds := []string{"array"}
		switch single := items["type"].(type) { // one element may stand for a list of one
		case []string:
			kinds = append(kinds, single...)
		case string:
			kinds = append(kinds, single)
		default:
			kinds = append(kinds, "string")
		}
		return map[string]any{"type": kinds, "items": items}
	case *ast.MapType:
		return map[string]any{"type": "object", "additionalProperties": g.schema(of.Value, words)}
	case *ast.StructType:
		properties := map[string]any{}
		g.properties(of, properties)
		return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
	case *ast.Ident:
		switch {
		case len(words) > 0:
			return map[string]any{"enum": words}
		case of.Name == "bool":
			return scalar("boolean", "string")
		case of.Name == "int":
			return scalar("integer", "string")
		case of.Name == "float64", of.Name == "Share", of.Name == "Size":
			return scalar("number", "string")
		case of.Name == "string":
			return scalar("string", "number")
		case of.Name == "Secret", of.Name == "SecretURL":
			return scalar("string")
		}
		s := g.schema(g.types[of.Name], nil)
		if g.short[of.Name] {
			s["type"] = []string{"object", "string"}
			if of.Name == "Exempt" || of.Name == "Skew" {
				s["type"] = []string{"object", "string", "array"}
			}
		}
		return s
	default:
		panic(fmt.Sprintf("a type like %T is new", of))
	}
}

func (g goTypes) properties(s *ast.StructType, into map[string]any) {
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		tag := reflect.StructTag(strings.Trim(f.Tag.Value, "`"))
		name, option, _ := strings.Cut(tag.Get("koanf"), ",")
		switch {
		case option == "squash":
			g.properties(g.types[f.Type.(*ast.Ident).Name].(*ast.StructType), into)
		case name == "" || name == "-":
		default:
			var words []string
			if one := tag.Get("one"); one != "" {
				words = strings.Split(one, "|")
			}
			property := g.schema(f.Type, words)
			if text := strings.Join(strings.Fields(f.Doc.Text()), " "); text != "" {
				property["description"] = text
			}
			into[name] = property
		}
	}
}

// TestTheSchemaAndTheDefaultsHaveTheSameKeys in both directions: Helm itself refuses
// defaults that the schema does not know.
func TestTheSchemaAndTheDefaultsHaveTheSameKeys(t *testing.T) {
	t.Parallel()
	type node struct {
		Properties map[string]json.RawMessage
		Ref        string `json:"$ref"`
		OneOf      []any
	}
	var schema node
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if text, err = os.ReadFile(filepath.Join(chart, "values.yaml")); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	// What is there only when somebody sets it.
	optional := map[string]bool{"global": true, "principals": true, "roles": true, "successThreshold": true, "initialDelaySeconds": true}
	seen := 0
	var walk func(path string, n node, values map[string]any)
	walk = func(path string, n node, values map[string]any) {
		for key, raw := range n.Properties {
			seen++
			var below node
			if err := json.Unmarshal(raw, &below); err != nil {
				t.Fatal(err)
			}
			value, there := values[key]
			if !there && !optional[key] {
				t.Errorf("values.yaml does not mention %s%s", path, key)
			}
			if inner, ok := value.(map[string]any); ok && below.Ref == "" {
				walk(path+key+".", below, inner)
			}
		}
	}
	walk("", schema, values)
	if seen < 100 {
		t.Errorf("only %d keys were looked at", seen)
	}
}
