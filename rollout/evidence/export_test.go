package evidence

// Waiting returns how many observations wait to be folded.
func (r *Recorder) Waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}

// RingSize is how many may wait.
const RingSize = ringSize
