/** Objects that stand in for another one, and answer some of its calls themselves. */

/**
 * An object that does what `inner` does, but for the methods in `own`; those that are undefined
 * there it has not. State stays where it is:
 * what is called works on `inner`, so that whoever holds that sees what becomes of it. Methods of
 * `inner` that call each other do not come by here.
 */
export function standIn<T extends object>(
  inner: T,
  own: { readonly [K in keyof T]?: T[K] | undefined },
): T {
  const methods: PropertyDescriptorMap = {};
  for (let level: object = inner; level !== Object.prototype; ) {
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      if (typeof value !== 'function' || name === 'constructor' || name in methods) continue;
      methods[name] = { value: value.bind(inner), writable: true, configurable: true };
    }
    level = Object.getPrototypeOf(level) as object;
  }
  return Object.assign(Object.create(inner, methods) as T, own);
}
