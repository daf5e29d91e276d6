/** A bounded map that forgets what was used longest ago. */

/** Keys to values, at most `capacity` of them; `get` counts as use. */
export class Lru<K, V> {
  private readonly entries = new Map<K, V>();

  constructor(
    readonly capacity: number,
    private readonly onEvict?: (key: K, value: V) => void,
  ) {}

  get size(): number {
    return this.entries.size;
  }

  get(key: K): V | undefined {
    const value = this.entries.get(key);
    if (value === undefined) return undefined;
    this.entries.delete(key);
    this.entries.set(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.entries.delete(key);
    this.entries.set(key, value);
    if (this.entries.size > this.capacity) this.evictOldest();
  }

  /** Whether the key is there; does not count as use. */
  has(key: K): boolean {
    return this.entries.has(key);
  }

  /**
   * Forgets the entry that was used longest ago, if there is any.
   * @param keep says of which keys the entry has to stay
   */
  evictOldest(keep?: (key: K) => boolean): void {
    for (const [key, value] of this.entries) {
      if (keep?.(key)) continue;
      this.entries.delete(key);
      this.onEvict?.(key, value);
      return;
    }
  }

  delete(key: K): boolean {
    return this.entries.delete(key);
  }

  clear(): void {
    this.entries.clear();
  }
}
