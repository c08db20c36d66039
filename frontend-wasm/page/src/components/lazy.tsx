import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import { Notice } from "./notice";
import { Button } from "./button";

/** A view whose code is fetched when it is first shown. */
export function lazy<Props extends object>(
  load: () => Promise<ComponentType<Props>>,
): ComponentType<Props> {
  let loaded: ComponentType<Props> | null = null;
  return function Lazy(props: Props) {
    const [Loaded, setLoaded] = useState<ComponentType<Props> | null>(() => loaded);
    const [failed, setFailed] = useState(false);
    useEffect(() => {
      if (Loaded) return;
      load().then(
        component => {
          loaded = component;
          setLoaded(() => component);
        },
        () => setFailed(true),
      );
    }, []);
    if (Loaded) return <Loaded {...props} />;
    return (
      <main class="main" id="main" aria-busy={!failed}>
        {failed && (
          <Notice tone="warn" title="A part of the page could not be loaded">
            <p>
              It is not there any more, or the connection broke. Reloading fetches the page anew;
              wallets stay where they are.
            </p>
            <Button testId="error-reload" small onClick={() => location.reload()}>
              Reload
            </Button>
          </Notice>
        )}
      </main>
    );
  };
}
