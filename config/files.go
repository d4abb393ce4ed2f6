package config

import (
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
)

// Files returns every file whose content matters, each once and sorted: the
// configuration file and all files that it names to be read. Watch them.
func (c *Config) Files() []string {
	files := map[string]bool{}
	if c.File != "" {
		files[c.File] = true
	}
	eachPath(reflect.ValueOf(*c), "", func(_, check string, file Path) {
		if check == "file" || check == "content" {
			files[string(file)] = true
		}
	})
	return slices.Sorted(maps.Keys(files))
}

// checkFiles notes every file and directory that is named but cannot be used.
func (l *loader) checkFiles(v reflect.Value, path string) {
	eachPath(v, path, func(path, check string, file Path) {
		var err error
		switch check {
		case "file", "fresh":
			err = usableFile(string(file))
		case "dir":
			err = usableDir(string(file))
		}
		if err != nil && !l.main.broken(path) {
			l.add(l.main.origin(path), shown(path), "", "cannot read %s: %s", file, err)
			l.main.failed[path] = true
		}
	})
}

// eachPath visits every path that is set below v.
func eachPath(v reflect.Value, path string, visit func(path, check string, file Path)) {
	switch v.Kind() {
	case reflect.Slice:
		for i := range v.Len() {
			eachPath(v.Index(i), join(path, index(i)), visit)
		}
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return compareText(a.String(), b.String()) })
		for _, key := range keys {
			eachPath(v.MapIndex(key), join(path, key.String()), visit)
		}
	case reflect.Struct:
		t := v.Type()
		for i := range t.NumField() {
			f := t.Field(i)
			name, option, _ := strings.Cut(f.Tag.Get("koanf"), ",")
			switch {
			case option == "squash":
				eachPath(v.Field(i), path, visit)
			case name == "" || name == "-":
			case f.Type == reflect.TypeFor[Path]():
				if file := Path(v.Field(i).String()); file != "" {
					visit(join(path, name), f.Tag.Get("check"), file)
				}
			default:
				eachPath(v.Field(i), join(path, name), visit)
			}
		}
	}
}

// usableFile opens a file that someone else will read. What is not a regular
// file is only looked at: opening a pipe may wait for ever.
func usableFile(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return cause(err)
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return cause(err)
	}
	return f.Close()
}

func usableDir(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return cause(err)
	case !info.IsDir():
		return errors.New("it is not a directory")
	}
	_, err = os.ReadDir(name)
	if err != nil {
		return cause(err)
	}
	return nil
}
