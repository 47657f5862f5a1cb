/** A queue from whose middle anyone may leave at once: a Map used as one rescans what has left its head. */

/** Owned by its value, and in one list at a time. */
export class ListNode<T> {
  readonly value: T;
  previous: ListNode<T> | null = null;
  next: ListNode<T> | null = null;
  listed = false;

  constructor(value: T) {
    this.value = value;
  }
}

export type LinkedList<T> = {
  readonly head: ListNode<T> | null;
  readonly size: number;
  append(node: ListNode<T>): void;
  prepend(node: ListNode<T>): void;
  /** False when it was not listed. */
  remove(node: ListNode<T>): boolean;
};

export function createLinkedList<T>(): LinkedList<T> {
  let head: ListNode<T> | null = null;
  let tail: ListNode<T> | null = null;
  let size = 0;

  function insert(node: ListNode<T>, previous: ListNode<T> | null, next: ListNode<T> | null): void {
    node.listed = true;
    node.previous = previous;
    node.next = next;
    if (previous) previous.next = node;
    else head = node;
    if (next) next.previous = node;
    else tail = node;
    size += 1;
  }

  return {
    get head() {
      return head;
    },
    get size() {
      return size;
    },
    append: (node) => insert(node, tail, null),
    prepend: (node) => insert(node, null, head),
    remove(node) {
      if (!node.listed) return false;
      node.listed = false;
      if (node.previous) node.previous.next = node.next;
      else head = node.next;
      if (node.next) node.next.previous = node.previous;
      else tail = node.previous;
      node.previous = null;
      node.next = null;
      size -= 1;
      return true;
    },
  };
}
