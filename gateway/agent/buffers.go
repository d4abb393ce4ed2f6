package agent

import "sync"

// bufferSize is what one read of a body takes.
const bufferSize = 32 << 10

// buffers are lent to requests while they copy a body. The pool has arrays: what
// is put into one as a slice is allocated each time.
type buffers struct{ pool sync.Pool }

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte {
	kept, ok := b.pool.Get().(*[bufferSize]byte)
	if !ok {
		kept = new([bufferSize]byte)
	}
	return kept[:]
}

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[bufferSize]byte)(buffer)) }
