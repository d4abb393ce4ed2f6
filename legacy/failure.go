package legacy

// step is one computation that follows a failed password.
type step struct {
	hash
	// whole steps are verifications in their own right and reported to
	// OnVerify. The others complete the verification of a hash that is cheaper
	// than the highest of its scheme; see the package comment.
	whole bool
}

// planFailures gives each user the steps that follow when its own hash did not
// match, and returns those of an unknown user. The sum is the same for all.
func planFailures(users map[string]*user) (strangers []step) {
	highest := map[string]int{}
	for _, u := range users {
		highest[u.hash.scheme] = max(highest[u.hash.scheme], u.hash.cost)
	}
	plans := map[class][]step{}
	for _, u := range users {
		plan, ok := plans[u.hash.class]
		if !ok {
			plan = append(completion(u.hash.class, highest[u.hash.scheme]), others(u.hash.scheme, highest)...)
			plans[u.hash.class] = plan
		}
		u.afterFailure = plan
	}
	return others("", highest)
}

// others returns one verification at the highest cost of each scheme of the
// file but own, always in the same order.
func others(own string, highest map[string]int) []step {
	var steps []step
	for _, scheme := range [...]string{Bcrypt, SHA512Crypt, SHA256Crypt, APR1} {
		if cost, ok := highest[scheme]; ok && scheme != own {
			steps = append(steps, step{dummy(class{scheme, cost}), true})
		}
	}
	return steps
}

// completion returns what a verification of own lacks to one of cost top.
func completion(own class, top int) []step {
	var steps []step
	switch own.scheme {
	case Bcrypt:
		for cost := own.cost; cost < top; cost++ {
			steps = append(steps, step{dummy(class{Bcrypt, cost}), false})
		}
	case SHA256Crypt, SHA512Crypt:
		if own.cost < top {
			steps = append(steps, step{dummy(class{own.scheme, top - own.cost}), false})
		}
	}
	return steps
}
