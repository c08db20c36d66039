import type { DuetError } from "@duet/signer";
import { useState } from "preact/hooks";

import { BackupFileField, backupFileProblem, PassphraseField } from "./field";
import { ErrorNotice } from "./notice";

interface Problems {
  file?: string | null;
  passphrase?: string | null;
}

/**
 * A file from the owner's disk that a passphrase opens: what was chosen and typed, and what is
 * wrong with it. `known` is the passphrase where the owner need not type it.
 */
export function useOpenedFile(known?: string) {
  const [file, setFile] = useState<File | null>(null);
  const [typed, setTyped] = useState("");
  const [problems, setProblems] = useState<Problems>({});
  const [error, setError] = useState<DuetError | null>(null);
  const passphrase = known ?? typed;

  return {
    file,
    typed,
    known,
    problems,
    error,
    choose: (chosen: File | null) => {
      setFile(chosen);
      setProblems(before => ({ ...before, file: null }));
    },
    type: setTyped,
    /** Looks at what is there; the file's bytes are read from the disk by {@link read}. */
    check: (): boolean => {
      setError(null);
      const found = {
        file: backupFileProblem(file),
        passphrase: passphrase === "" ? "Type the passphrase of the file." : null,
      };
      setProblems(found);
      return found.file === null && found.passphrase === null;
    },
    /** The file as it is on the disk now; `null`, and said, when the browser cannot read it. */
    read: async (): Promise<{ bytes: Uint8Array; passphrase: string } | null> => {
      try {
        return file && { bytes: new Uint8Array(await file.arrayBuffer()), passphrase };
      } catch {
        setProblems({ file: "The browser cannot read this file. Choose it again." });
        return null;
      }
    },
    /** Shows why it did not open, beside the field that is to blame. */
    refuse: (refused: DuetError): void => {
      if (refused.kind === "invalid") {
        setProblems({ file: refused.message });
        return;
      }
      setError(refused);
      if (refused.kind !== "wrong-passphrase" || known !== undefined) return;
      setProblems({ passphrase: "That passphrase does not open the file." });
      setTyped("");
    },
  };
}

interface OpenedFileFieldsProps {
  /** Before the fields' ids: `<id>-file`, `<id>-passphrase`. */
  id: string;
  label: string;
  opened: ReturnType<typeof useOpenedFile>;
}

/** Asks for the file and, unless it is known, its passphrase. */
export function OpenedFileFields({ id, label, opened }: OpenedFileFieldsProps) {
  const { typed, known, problems, choose, type } = opened;
  return (
    <>
      <BackupFileField id={`${id}-file`} label={label} error={problems.file} onChoose={choose} />
      {known === undefined && (
        <PassphraseField
          id={`${id}-passphrase`}
          label="Passphrase of the file"
          value={typed}
          onInput={type}
          error={problems.passphrase}
        />
      )}
    </>
  );
}

/** Why the file did not open, where no field is to blame. */
export function OpenedFileError({
  opened: { error },
  onRetry,
}: {
  opened: ReturnType<typeof useOpenedFile>;
  onRetry?: () => void;
}) {
  return error && <ErrorNotice error={error} onRetry={onRetry} />;
}
