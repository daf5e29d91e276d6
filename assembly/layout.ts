// Where things lie in the linear memory that JavaScript owns and imports into every instance.
//
//   0x0000000 – 0x000ffff   constants that the compiler places
//   0x0010000 – 0x0ffffff   SCRATCH: the codecs' tables and buffers, fixed at compile time (fixed
//                           addresses save an add on every table load); free between two calls
//   0x1000000 – …           the caller's arena: every pointer that a kernel is given lies here
//
// The codecs share the scratch area: none keeps anything in it from one call to the next. Only the
// slowest level of an encoder needs much of it, and memory that nothing touches costs nothing.

export const SCRATCH: usize = 0x0010000;
export const SCRATCH_END: usize = 0x1000000;
