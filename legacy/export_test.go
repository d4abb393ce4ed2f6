package legacy

// Work is what the computations of one judgement come to, by scheme: rounds of
// SHA-crypt, 2^cost of bcrypt, 1 for apr1.
type Work map[string]int

func (w Work) add(c class) {
	if c.scheme == Bcrypt {
		w[c.scheme] += 1 << c.cost
	} else {
		w[c.scheme] += c.cost
	}
}

// FailureWork returns what a wrong password costs for a user, known or not.
func FailureWork(k *Keyring, name string) Work {
	w, steps := Work{}, k.strangers
	if u, ok := k.users[name]; ok {
		w.add(u.hash.class)
		steps = u.afterFailure
	}
	for _, s := range steps {
		w.add(s.class)
	}
	return w
}
