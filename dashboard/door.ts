/** Who may enter the board. */
import { createHash, timingSafeEqual } from 'node:crypto';

export const boardRoles = ['viewer', 'admin'] as const;
export type BoardRole = (typeof boardRoles)[number];

export type BoardUser = {
  name: string;
  /** SHA-256 of the password, in hex. */
  passwordSha256: string;
  role: BoardRole;
};

export type Door = { admit(name: string, password: string): BoardUser | undefined };

/** Compares everybody in constant time, so that neither names nor passwords can be felt for. */
export function createDoor(users: readonly BoardUser[]): Door {
  const known = users.map((user) => ({
    user,
    name: sha256(user.name),
    password: Buffer.from(user.passwordSha256, 'hex'),
  }));
  return {
    admit(name, password) {
      const [asName, asPassword] = [sha256(name), sha256(password)];
      let admitted: BoardUser | undefined;
      for (const entry of known) {
        const sameName = timingSafeEqual(entry.name, asName);
        const samePassword =
          entry.password.length === asPassword.length &&
          timingSafeEqual(entry.password, asPassword);
        if (sameName && samePassword) admitted = entry.user;
      }
      return admitted;
    },
  };
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
