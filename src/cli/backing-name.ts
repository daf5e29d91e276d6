/** How QEMU's tools name the backing file of an image: as it has to be opened from here. */

/** A scheme before the first slash: `nbd:`, `json:`, `file:`. Such a name is not relative. */
const PROTOCOL = /^[^/:]*:/;

/**
 * The backing file's name with the folder of the image in front, where it is a relative path.
 * Nothing is tidied up: `../x` in `sub/image` is `sub/../x`.
 * @param from path of the image that has the name
 */
export function fullBackingName(name: string, from: string): string {
  if (name.startsWith('/') || PROTOCOL.test(name)) return name;
  return from.slice(0, from.lastIndexOf('/') + 1) + name;
}
