package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
)

// EvidenceHashes tell for each account under which configuration evidence about
// it was gathered. The zero value knows none. It is immutable, so it is safe for
// concurrent use.
type EvidenceHashes struct {
	accounts map[string]string
	others   string
}

// Of returns 12 hex characters of SHA-256 over what judges the tokens of an
// account: how all issuers' tokens are verified, the claim rules of the roles
// file with the roles that they give, authorization, and of the entry of the
// account all but its owner, with the roles that it has. An account without an
// entry has the hash of the rest, and of whether there are entries at all. It
// costs one look-up and no memory.
//
// What changes nothing about a token does not change the hash: another account's
// entry, a listener, Redis, limits, the order of entries, and how keys are
// fetched. Nor does the deny-list, which is there to be changed in a hurry: what
// it refuses shows in the evidence by itself.
func (h EvidenceHashes) Of(account string) string {
	if hash, ok := h.accounts[account]; ok {
		return hash
	}
	return h.others
}

// Hash returns 12 hex characters of SHA-256 over the hashes of all accounts: two
// configurations that agree on it judge everybody's tokens alike. It is "" of the
// zero value.
func (h EvidenceHashes) Hash() string {
	if h.others == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(canonical(map[string]any{"accounts": h.accounts, "others": h.others})))
	return hex.EncodeToString(sum[:6])
}

// evidenceBasis is what is hashed. Whatever is at its zero value is left out, so
// that a key that comes with a newer version leaves the evidence as it is.
type evidenceBasis struct {
	Issuers       []map[string]any             `json:"issuers,omitempty"`
	Claims        map[string]map[string]string `json:"claims,omitempty"`
	Teams         map[string]map[string]string `json:"teams,omitempty"`
	Roles         map[string]any               `json:"roles,omitempty"`
	Ruled         bool                         `json:"ruled,omitempty"` // there is a roles file, so that who has no role may do nothing
	Authorization Authorization                `json:"authorization,omitempty"`
	Mapped        bool                         `json:"mapped,omitempty"` // there are entries, so that who has none is mapped to nobody
	Entry         map[string]any               `json:"entry,omitempty"`
}

// EvidenceHashes computes the hashes of all accounts. Call it once for a
// configuration.
func (c *Config) EvidenceHashes() EvidenceHashes {
	basis := evidenceBasis{Authorization: c.Authorization, Roles: map[string]any{}, Ruled: c.Roles != nil}
	issuers := slices.Clone(c.OIDC.Issuers)
	slices.SortFunc(issuers, func(a, b Issuer) int { return cmp.Compare(a.Issuer, b.Issuer) })
	for _, issuer := range issuers {
		issuer.CAFile = "" // whom to fetch keys from, not what they are good for
		for _, set := range []*[]string{
			&issuer.Audiences, &issuer.Algorithms, &issuer.AuthorizedParties, &issuer.Tenants, &issuer.TokenTypes, &issuer.Scopes,
		} {
			*set = sorted(*set)
		}
		basis.Issuers = append(basis.Issuers, pruned(plain(issuer)))
	}
	if c.Roles != nil {
		basis.Claims, basis.Teams = c.Roles.Claims, c.Roles.Teams
		for _, values := range c.Roles.Claims {
			for _, role := range values {
				basis.Roles[role] = c.roleBasis(role)
			}
		}
	}
	h := EvidenceHashes{accounts: make(map[string]string, len(c.Principals))}
	for _, p := range c.Principals {
		h.accounts[p.Name] = c.entryBasis(basis, p).hash()
	}
	basis.Mapped = len(c.Principals) > 0
	h.others = basis.hash()
	return h
}

// entryBasis adds the entry of an account to what all accounts have in common.
func (c *Config) entryBasis(basis evidenceBasis, p Principal) evidenceBasis {
	basis.Roles = maps.Clone(basis.Roles)
	for _, role := range p.Roles {
		basis.Roles[role] = c.roleBasis(role)
	}
	p.Owner = ""
	p.Legacy, p.Roles, p.MayBe = sorted(p.Legacy), sorted(p.Roles), sorted(p.MayBe)
	p.OIDC = slices.Clone(p.OIDC)
	slices.SortFunc(p.OIDC, func(a, b TokenMatch) int { return cmp.Compare(canonical(plain(a)), canonical(plain(b))) })
	basis.Entry = pruned(plain(p))
	basis.Entry["name"] = p.Name
	return basis
}

// roleBasis is what a role permits, nil if no file says.
func (c *Config) roleBasis(name string) any {
	if c.Roles == nil {
		return nil
	}
	role := c.Roles.Roles[name]
	return plain(Role{Execute: sorted(role.Execute), View: sorted(role.View), Admin: sorted(role.Admin)})
}

func (b evidenceBasis) hash() string {
	sum := sha256.Sum256([]byte(canonical(b)))
	return hex.EncodeToString(sum[:6])
}

// canonical writes text, numbers, lists and maps with text keys, which cannot
// fail.
func canonical(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// pruned removes what is at its zero value from a tree of maps.
func pruned(tree map[string]any) map[string]any {
	maps.DeleteFunc(tree, func(_ string, v any) bool {
		below, ok := v.(map[string]any)
		if ok {
			pruned(below)
			return len(below) == 0
		}
		return v == false || v == 0 || v == "0s"
	})
	return tree
}

// sorted returns a set in order, each of its members once.
func sorted(set []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(set)))
}
