// Where things lie in the linear memory that JavaScript owns and imports into every instance.
//
//   0x000000 – 0x00ffff   constants that the compiler places
//   0x010000 – 0x0fffff   SCRATCH: decoder tables and buffers, fixed at compile time (fixed
//                         addresses save an add on every table load); free between two calls
//   0x100000 – …          the caller's arena: every pointer that a kernel is given lies here
//
// The decoders share the scratch area: none keeps anything in it from one call to the next.

export const SCRATCH: usize = 0x010000;
export const SCRATCH_END: usize = 0x100000;
