import type { DescribedField, Description } from "@duet/signer";

import { AddressText } from "./address";
import { Notice } from "./notice";

/** A level of a document: its own fields, and what lies below them. */
interface Branch {
  name: string;
  path: string;
  field: DescribedField | null;
  below: Map<string, Branch>;
}

/** `message.to[0].wallet` → `message`, `to`, `[0]`, `wallet`. */
const parts = (path: string): string[] => path.match(/\[\d+\]|[^.[\]]+/g) ?? [path];

function grow(fields: readonly DescribedField[]): Branch {
  const root: Branch = { name: "", path: "", field: null, below: new Map() };
  for (const field of fields) {
    let at = root;
    for (const part of parts(field.path)) {
      let next = at.below.get(part);
      if (!next) {
        next = {
          name: part,
          path:
            at.path === "" ? part : part.startsWith("[") ? at.path + part : `${at.path}.${part}`,
          field: null,
          below: new Map(),
        };
        at.below.set(part, next);
      }
      at = next;
    }
    at.field = field;
  }
  return root;
}

export function FieldValue({ field }: { field: DescribedField }) {
  if (field.type === "address" && /^0x[0-9a-fA-F]{40}$/.test(field.value))
    return <AddressText address={field.value} />;
  if (field.type.startsWith("bytes")) return <span class="mono">{field.value}</span>;
  if (field.value === "") return <span class="soft">(empty)</span>;
  return <>{field.value}</>;
}

function Level({
  branch,
  testPrefix,
  annotate,
}: {
  branch: Branch;
  testPrefix: string;
  annotate: Annotate;
}) {
  return (
    <ul class="tree">
      {[...branch.below.values()].map(child => (
        <li key={child.path}>
          {child.field && (
            <div class="tree-leaf" data-testid={`${testPrefix}-field-${child.path}`}>
              <span class="tree-name">
                {child.name}
                <span class="tree-type">{child.field.type}</span>
              </span>
              <span class="tree-value">
                <FieldValue field={child.field} />
                {annotate(child.field) && (
                  <span class="tree-note tree-note-inline">{annotate(child.field)}</span>
                )}
              </span>
            </div>
          )}
          {child.below.size > 0 && (
            <>
              {!child.field && <span class="tree-group">{child.name}</span>}
              <Level branch={child} testPrefix={testPrefix} annotate={annotate} />
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

type Annotate = (field: DescribedField) => string | null;
const nothing: Annotate = () => null;

interface FieldTreeProps {
  fields: readonly DescribedField[];
  /** Prefix of the fields' test ids. */
  testPrefix: string;
  testId?: string | undefined;
  /** A note in plainer units below a value. */
  annotate?: Annotate | undefined;
}

/** Every field of a payload as the signing code reads it. */
export function FieldTree({ fields, testPrefix, testId, annotate = nothing }: FieldTreeProps) {
  return (
    <div data-testid={testId}>
      <Level branch={grow(fields)} testPrefix={testPrefix} annotate={annotate} />
    </div>
  );
}

/** Members of typed data that the signature says nothing about. */
export function NotSignedMembers({
  description,
  testId,
}: {
  description: Description;
  testId: string;
}) {
  const members = description.notSigned ?? [];
  if (members.length === 0) return null;
  return (
    <Notice tone="warn" title="Not signed" testId={testId}>
      <p>
        The signature says nothing about these members. It holds with any other value in their
        place.
      </p>
      <ul>
        {members.map(({ path, value, reason }) => (
          <li key={path}>
            <code>{path}</code>: <span class="mono">{value}</span>{" "}
            {reason === "not-covered"
              ? "(the domain’s declared type does not cover it)"
              : "(the types do not declare it)"}
          </li>
        ))}
      </ul>
    </Notice>
  );
}

export const KIND_NAMES: Record<Description["kind"], string> = {
  transaction: "Transaction",
  personal_message: "Message",
  typed_data: "Typed data",
  digest: "Raw digest",
};
