package luigi

// The functions here take apart what the scheduler itself wrote. Replies are
// read with the same scanner as calls, because Python writes NaN and Infinity
// where encoding/json knows neither.

// members returns the members of the object data, in order, names and values
// raw. They refer to data.
func members(data []byte) (list []member, ok bool) {
	s := scanner{data: data}
	s.space()
	if !s.byte('{') {
		return nil, false
	}
	s.space()
	for !s.byte('}') {
		if len(list) > 0 {
			if !s.byte(',') {
				return nil, false
			}
			s.space()
		}
		name, _, ok := s.str()
		if !ok {
			return nil, false
		}
		s.space()
		if !s.byte(':') {
			return nil, false
		}
		value, ok := s.next()
		if !ok {
			return nil, false
		}
		list = append(list, member{name, value})
	}
	s.space()
	return list, s.at == len(data)
}

// elements returns the raw elements of the array data.
func elements(data []byte) (list [][]byte, ok bool) {
	s := scanner{data: data}
	s.space()
	if !s.byte('[') {
		return nil, false
	}
	s.space()
	for !s.byte(']') {
		if len(list) > 0 && !s.byte(',') {
			return nil, false
		}
		value, ok := s.next()
		if !ok {
			return nil, false
		}
		list = append(list, value)
	}
	s.space()
	return list, s.at == len(data)
}

// wrapping is how much deeper than in a call a value may lie in a reply: the
// scheduler lists what workers said by task, status, worker or resource.
const wrapping = 8

// next returns one value without the white space around it.
func (s *scanner) next() (value []byte, ok bool) {
	s.space()
	start := s.at
	if !s.value(1 - wrapping) {
		return nil, false
	}
	value = s.data[start:s.at]
	s.space()
	return value, true
}

// response returns what a reply of the API holds.
func response(body []byte) (value []byte, ok bool) {
	fields, ok := members(body)
	if !ok || len(fields) != 1 || string(fields[0].name) != "response" {
		return nil, false
	}
	return fields[0].value, true
}

// lastMember returns the value of the last member of that name, which is the one
// that Python and JavaScript see, or nil.
func lastMember(fields []member, name string) []byte {
	for i := len(fields) - 1; i >= 0; i-- {
		if string(fields[i].name) == name {
			return fields[i].value
		}
	}
	return nil
}

// textOf returns the text of a raw JSON string; null and absence are "". ok is
// false for everything else.
func textOf(raw []byte) (value string, ok bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return "", true
	}
	if raw[0] != '"' {
		return "", false
	}
	return decodeString(raw[1 : len(raw)-1])
}
