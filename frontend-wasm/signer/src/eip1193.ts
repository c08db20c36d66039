/**
 * A Duet wallet as an Ethereum provider ([EIP-1193](https://eips.ethereum.org/EIPS/eip-1193)),
 * announced to the page as one of its wallets
 * ([EIP-6963](https://eips.ethereum.org/EIPS/eip-6963)).
 *
 * ```ts
 * const provider = new DuetProvider({ duet, chains: [{ chainId: 1, rpcUrl }] });
 * announce(provider);
 * ```
 *
 * @packageDocumentation
 */

import { Failure, unwrap } from "./errors.js";
import { ProviderError, providerError, rpcCodes } from "./eip1193-errors.js";
import { quantityHex } from "./payload.js";
import type {
  Address,
  Connection,
  Description,
  DuetApi,
  Hex,
  Payload,
  Quantity,
  ReadTransaction,
  Signed,
  TransactionPayload,
  Undeclared,
  WalletId,
  WalletSummary,
} from "./types.js";

export { ProviderError, rpcCodes } from "./eip1193-errors.js";

/** A chain that may be chosen, and a node for it. */
export interface ProviderChain {
  chainId: number;
  rpcUrl: string;
}

export interface ProviderRequest {
  method: string;
  params?: readonly unknown[] | object;
}

export interface ProviderOptions {
  duet: Pick<
    DuetApi,
    | "wallets"
    | "sign"
    | "describe"
    | "readTransaction"
    | "readTypedData"
    | "onWallets"
    | "onConnection"
    | "connection"
  >;
  /** The first is chosen at the beginning. */
  chains: readonly [ProviderChain, ...ProviderChain[]];
  /**
   * Which wallets a page gets to see when it asks for accounts: an empty list is a no. Without it,
   * all that are unlocked.
   */
  chooseWallets?: (wallets: WalletSummary[]) => Promise<WalletId[]> | WalletId[];
  /**
   * Shows what would be signed, and says whether it is. Without it everything is signed that is
   * asked for, which is right only where the page is the wallet's own.
   */
  confirm?: (question: {
    wallet: WalletSummary;
    description: Description;
  }) => Promise<boolean> | boolean;
  /**
   * What happens to members of typed data that its types do not declare. They are refused by
   * default; `drop` signs without them, and the description lists them.
   */
  undeclared?: Undeclared;
}

/** A permission under [EIP-2255](https://eips.ethereum.org/EIPS/eip-2255). */
export interface Permission {
  parentCapability: "eth_accounts";
  /** The page it is given to. */
  invoker?: string;
  caveats: [{ type: "restrictReturnedAccounts"; value: Address[] }];
}

interface Events {
  connect: { chainId: Hex };
  disconnect: ProviderError;
  chainChanged: Hex;
  accountsChanged: Address[];
}

type Listener = (value: never) => void;

/** How long a node may take. */
const RPC_DEADLINE_MS = 30_000;

/** Only what reads, or sends what is signed already, is passed on to the node. */
const PASSED_ON = new Set([
  "eth_blobBaseFee",
  "eth_blockNumber",
  "eth_call",
  "eth_createAccessList",
  "eth_estimateGas",
  "eth_feeHistory",
  "eth_gasPrice",
  "eth_getBalance",
  "eth_getBlockByHash",
  "eth_getBlockByNumber",
  "eth_getBlockReceipts",
  "eth_getBlockTransactionCountByHash",
  "eth_getBlockTransactionCountByNumber",
  "eth_getCode",
  "eth_getFilterChanges",
  "eth_getFilterLogs",
  "eth_getLogs",
  "eth_getProof",
  "eth_getStorageAt",
  "eth_getTransactionByBlockHashAndIndex",
  "eth_getTransactionByBlockNumberAndIndex",
  "eth_getTransactionByHash",
  "eth_getTransactionCount",
  "eth_getTransactionReceipt",
  "eth_maxPriorityFeePerGas",
  "eth_newBlockFilter",
  "eth_newFilter",
  "eth_newPendingTransactionFilter",
  "eth_sendRawTransaction",
  "eth_syncing",
  "eth_uninstallFilter",
  "net_listening",
  "net_version",
  "web3_clientVersion",
  "web3_sha3",
]);

export class DuetProvider {
  readonly #options: ProviderOptions;
  readonly #listeners = new Map<string, Set<Listener>>();
  #chain: ProviderChain;
  /** The wallets that were shown to the page, and only those. */
  #wallets: WalletSummary[] = [];
  #connected = false;
  #rpcId = 0;

  constructor(options: ProviderOptions) {
    this.#options = options;
    this.#chain = options.chains[0];
    options.duet.onConnection(connection => this.#turn(connection));
    options.duet.onWallets(wallets => this.#reconsider(wallets));
    this.#turn(options.duet.connection);
  }

  isConnected(): boolean {
    return this.#connected;
  }

  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => void): this;
  on(event: string, listener: Listener): this;
  on(event: string, listener: Listener): this {
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    return this;
  }

  removeListener(event: string, listener: Listener): this {
    this.#listeners.get(event)?.delete(listener);
    return this;
  }

  /** @throws {ProviderError} always of this class, with a code of EIP-1193, EIP-1474 or EIP-3085. */
  async request({ method, params }: ProviderRequest): Promise<unknown> {
    try {
      return await this.#answer(method, params);
    } catch (thrown) {
      throw thrown instanceof ProviderError ? thrown : providerError(thrown);
    }
  }

  async #answer(method: string, params: ProviderRequest["params"]): Promise<unknown> {
    if (typeof method !== "string")
      throw new ProviderError(rpcCodes.invalidRequest, "A request names its method.");
    const list: readonly unknown[] = Array.isArray(params)
      ? params
      : params === undefined
        ? []
        : [params];
    switch (method) {
      case "eth_requestAccounts":
        return this.#connect();
      case "eth_accounts":
        return this.#addresses();
      case "eth_chainId":
        return this.#chainId();
      case "net_version":
        return String(this.#chain.chainId);
      case "personal_sign":
        return this.#personalSign(list);
      case "eth_signTypedData_v4":
        return this.#signTypedData(list);
      case "eth_signTransaction":
        return (await this.#signTransaction(list)).raw;
      case "eth_sendTransaction": {
        const { raw } = await this.#signTransaction(list);
        return this.#rpc("eth_sendRawTransaction", [raw]);
      }
      case "wallet_switchEthereumChain":
      case "wallet_addEthereumChain":
        return this.#switchChain(list);
      case "wallet_getPermissions":
        return this.#permissions();
      case "wallet_requestPermissions":
        requireAccountsAlone(list);
        // The owner is asked even if accounts were given before: this is how a page lets another be
        // chosen.
        await this.#choose();
        return this.#permissions();
      case "wallet_revokePermissions":
        this.#show([]);
        return null;
      default:
        if (PASSED_ON.has(method)) return this.#rpc(method, list);
        throw new ProviderError(rpcCodes.unsupportedMethod, `This wallet does not do ${method}.`);
    }
  }

  // --------------------------------------------------------------------------- accounts and chains

  async #connect(): Promise<Address[]> {
    if (this.#wallets.length === 0) await this.#choose();
    return this.#addresses();
  }

  async #choose(): Promise<void> {
    const { duet, chooseWallets } = this.#options;
    const all = (await duet.wallets()).filter(({ address }) => address !== null);
    const unlocked = (): WalletId[] =>
      all.filter(({ state }) => state === "unlocked").map(({ id }) => id);
    const chosen = chooseWallets ? await chooseWallets(all) : unlocked();
    if (chosen.length === 0) {
      throw chooseWallets
        ? new ProviderError(rpcCodes.userRejected, "No wallet was chosen.")
        : new ProviderError(rpcCodes.unauthorized, "No wallet is unlocked.");
    }
    // In the order of the choice: the first is the page's default.
    this.#show(chosen.flatMap(id => all.find(wallet => wallet.id === id) ?? []));
  }

  #permissions(): Permission[] {
    if (this.#wallets.length === 0) return [];
    const invoker = globalThis.location?.origin;
    return [
      {
        parentCapability: "eth_accounts",
        ...(invoker !== undefined && { invoker }),
        caveats: [{ type: "restrictReturnedAccounts", value: this.#addresses() }],
      },
    ];
  }

  #addresses(): Address[] {
    return this.#wallets.flatMap(({ address }) => address ?? []);
  }

  #chainId(): Hex {
    return quantityHex(this.#chain.chainId, "chainId");
  }

  #show(wallets: WalletSummary[]): void {
    const before = this.#addresses().join();
    this.#wallets = wallets;
    if (this.#addresses().join() !== before) this.#emit("accountsChanged", this.#addresses());
  }

  /** What the page was shown may have been removed meanwhile. */
  #reconsider(wallets: WalletSummary[]): void {
    this.#show(this.#wallets.flatMap(({ id }) => wallets.find(wallet => wallet.id === id) ?? []));
  }

  #turn(connection: Connection): void {
    const connected = connection === "online";
    if (connected === this.#connected) return;
    this.#connected = connected;
    if (connected) this.#emit("connect", { chainId: this.#chainId() });
    else
      this.#emit(
        "disconnect",
        new ProviderError(rpcCodes.disconnected, "The gateway cannot be reached."),
      );
  }

  #switchChain([wanted]: readonly unknown[]): null {
    const chainId = (wanted as { chainId?: unknown } | undefined)?.chainId;
    if (typeof chainId !== "string" || !/^0x[0-9a-fA-F]+$/.test(chainId)) {
      throw new ProviderError(
        rpcCodes.invalidParams,
        "Expected an object with `chainId`, `0x` and hexadecimal digits.",
      );
    }
    const chain = this.#options.chains.find(known => BigInt(known.chainId) === BigInt(chainId));
    if (!chain)
      throw new ProviderError(
        rpcCodes.unknownChain,
        `Chain ${BigInt(chainId)} is not configured here.`,
      );
    if (chain.chainId !== this.#chain.chainId) {
      this.#chain = chain;
      this.#emit("chainChanged", this.#chainId());
    }
    return null;
  }

  // -------------------------------------------------------------------------------------- signing

  async #personalSign([first, second]: readonly unknown[]): Promise<Hex> {
    // The address before the message is a common mistake, which MetaMask turns round, too.
    const turned = looksLikeAddress(first) && !looksLikeAddress(second);
    const [data, from] = turned ? [second, first] : [first, second];
    if (typeof data !== "string") {
      throw new ProviderError(
        rpcCodes.invalidParams,
        "Expected a message, as text or `0x` and hexadecimal digits, and an address.",
      );
    }
    const payload: Payload = /^0x([0-9a-fA-F]{2})*$/.test(data)
      ? { kind: "personal_message", hex: data }
      : { kind: "personal_message", text: data };
    return (await this.#sign(from, payload)).signature;
  }

  async #signTypedData([from, document]: readonly unknown[]): Promise<Hex> {
    if (typeof document !== "string" && (typeof document !== "object" || document === null)) {
      throw new ProviderError(rpcCodes.invalidParams, "Expected an address and typed data.");
    }
    this.#wallet(from);
    const { duet, undeclared } = this.#options;
    const payload = unwrap(
      await duet.readTypedData(document as string | Record<string, unknown>, undeclared),
    );
    const chainId = payload.domain["chainId"] as Quantity | null | undefined;
    if (chainId != null) this.#requireChain(chainId);
    return (await this.#sign(from, payload)).signature;
  }

  async #signTransaction([request]: readonly unknown[]): Promise<{ raw: Hex; hash: Hex }> {
    if (typeof request !== "object" || request === null) {
      throw new ProviderError(rpcCodes.invalidParams, "Expected a transaction.");
    }
    const reading = unwrap(
      await this.#options.duet.readTransaction(request as Record<string, unknown>),
    );
    const { from } = reading;
    this.#wallet(from);
    const payload = await this.#filledIn(reading);
    const { transaction } = await this.#sign(from, payload);
    if (!transaction)
      throw new ProviderError(rpcCodes.internal, "The signature came without its transaction.");
    return transaction;
  }

  async #sign(from: unknown, payload: Payload): Promise<Signed> {
    const { duet, confirm } = this.#options;
    const wallet = this.#wallet(from);
    if (confirm) {
      const description = unwrap(await duet.describe(payload));
      if (!(await confirm({ wallet, description }))) {
        throw new ProviderError(rpcCodes.userRejected, "The owner said no.");
      }
    }
    return unwrap(await duet.sign(wallet.id, payload));
  }

  /** The wallet that was shown to the page under this address. */
  #wallet(from: unknown): WalletSummary {
    if (typeof from !== "string")
      throw new ProviderError(rpcCodes.invalidParams, "Expected the sender's address.");
    const wallet = this.#wallets.find(
      ({ address }) => address?.toLowerCase() === from.toLowerCase(),
    );
    if (!wallet)
      throw new ProviderError(rpcCodes.unauthorized, `${from} was not given to this page.`);
    return wallet;
  }

  #requireChain(chainId: Quantity): void {
    if (BigInt(quantityHex(chainId, "chainId")) !== BigInt(this.#chain.chainId)) {
      throw new ProviderError(
        rpcCodes.invalidParams,
        `This is for chain ${BigInt(chainId)}; chosen is ${this.#chain.chainId}.`,
      );
    }
  }

  /** The transaction with what was left out: nonce, gas and fees as the node has them. What is there is kept. */
  async #filledIn(reading: ReadTransaction): Promise<TransactionPayload> {
    const { members, from } = reading;
    if (members.chainId !== undefined) this.#requireChain(members.chainId);
    const { to, value, data, accessList } = members;
    const call = { from, value, data, accessList, ...(to !== null && { to }) };
    const [nonce, gas, fees] = await Promise.all([
      members.nonce ?? this.#quantity("eth_getTransactionCount", [from, "pending"]),
      members.gas ?? this.#quantity("eth_estimateGas", [call]),
      this.#fees(reading),
    ]);
    return {
      kind: "transaction",
      to: null,
      ...members,
      chainId: this.#chainId(),
      nonce,
      gas,
      ...fees,
    };
  }

  /** The fees that are missing: of EIP-1559 where blocks have a base fee, else one price for gas. */
  async #fees({ members, missing, type }: ReadTransaction): Promise<Partial<TransactionPayload>> {
    if (!missing.some(name => name === "gasPrice" || name.startsWith("max"))) return {};
    const price = async () => ({ gasPrice: await this.#quantity("eth_gasPrice", []) });
    if (type === "0x0" || type === "0x1") return price();
    const block = (await this.#rpc("eth_getBlockByNumber", ["latest", false])) as {
      baseFeePerGas?: string | null;
    } | null;
    if (block?.baseFeePerGas == null) {
      if (type === undefined)
        return { type: members.accessList === undefined ? "0x0" : "0x1", ...(await price()) };
      throw new ProviderError(
        rpcCodes.invalidParams,
        `Chain ${this.#chain.chainId} has no base fee and takes no transaction of EIP-1559; leave out its fees and the type.`,
      );
    }
    const baseFee = BigInt(block.baseFeePerGas);
    const { maxFeePerGas, maxPriorityFeePerGas } = members;
    const tip =
      maxPriorityFeePerGas == null
        ? await this.#priorityFee(baseFee)
        : BigInt(maxPriorityFeePerGas);
    // Room for the base fee to double, which takes six full blocks.
    const most = maxFeePerGas == null ? 2n * baseFee + tip : BigInt(maxFeePerGas);
    // A ceiling that the page gave also bounds a tip that it did not give.
    return {
      maxFeePerGas: most,
      maxPriorityFeePerGas: maxPriorityFeePerGas == null && tip > most ? most : tip,
    };
  }

  /**
   * What block producers are paid for a unit of gas: as the node says, or else from the last
   * blocks, or else what the gas price leaves above the base fee. Not every node has every method.
   */
  async #priorityFee(baseFee: bigint): Promise<bigint> {
    const said = await this.#ifAnswered("eth_maxPriorityFeePerGas", []);
    if (said !== undefined)
      return BigInt(quantityHex(said as Quantity, "eth_maxPriorityFeePerGas"));
    const history = (await this.#ifAnswered("eth_feeHistory", ["0xa", "latest", [50]])) as
      { reward?: string[][] | null } | undefined;
    const paid = (history?.reward ?? []).flatMap(([median]) =>
      median === undefined ? [] : [BigInt(median)],
    );
    paid.sort((one, other) => (one < other ? -1 : Number(one > other)));
    const median = paid[Math.floor(paid.length / 2)];
    if (median !== undefined) return median;
    const price = BigInt(await this.#quantity("eth_gasPrice", []));
    return price > baseFee ? price - baseFee : 0n;
  }

  // ----------------------------------------------------------------------------------------- node

  async #quantity(method: string, params: readonly unknown[]): Promise<Hex> {
    return quantityHex((await this.#rpc(method, params)) as Quantity, method);
  }

  /** The node's answer, or `undefined` where it refuses. That it does not answer at all is an error. */
  async #ifAnswered(method: string, params: readonly unknown[]): Promise<unknown> {
    try {
      return await this.#rpc(method, params);
    } catch (thrown) {
      if (thrown instanceof ProviderError && thrown.code !== rpcCodes.chainDisconnected)
        return undefined;
      throw thrown;
    }
  }

  async #rpc(method: string, params: readonly unknown[]): Promise<unknown> {
    const { rpcUrl, chainId } = this.#chain;
    this.#rpcId += 1;
    let answer: { result?: unknown; error?: { code?: number; message?: string; data?: unknown } };
    try {
      const response = await fetch(rpcUrl, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id: this.#rpcId, method, params }),
        signal: AbortSignal.timeout(RPC_DEADLINE_MS),
      });
      answer = (await response.json()) as typeof answer;
    } catch (thrown) {
      const reason = thrown instanceof Error ? thrown.message : String(thrown);
      throw new ProviderError(
        rpcCodes.chainDisconnected,
        `The node of chain ${chainId} does not answer: ${reason}`,
      );
    }
    if (answer.error) {
      const { code = rpcCodes.internal, message = "The node refused.", data } = answer.error;
      throw new ProviderError(code, message, data);
    }
    return answer.result;
  }

  #emit<Name extends keyof Events>(event: Name, value: Events[Name]): void {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        (listener as (value: Events[Name]) => void)(value);
      } catch (thrown) {
        reportError(thrown);
      }
    }
  }
}

const looksLikeAddress = (value: unknown): boolean =>
  typeof value === "string" && /^0x[0-9a-fA-F]{40}$/.test(value);

/** Refuses to be asked for another permission than the one there is. */
function requireAccountsAlone([wanted]: readonly unknown[]): void {
  const names = typeof wanted === "object" && wanted !== null ? Object.keys(wanted) : [];
  if (names.length !== 1 || names[0] !== "eth_accounts") {
    throw new ProviderError(
      rpcCodes.invalidParams,
      "Expected an object with `eth_accounts`; no other permission is given.",
    );
  }
}

/** What a page is told about the wallet. */
export interface ProviderInfo {
  /** Random, for the life of the page. */
  uuid: string;
  name: string;
  /** A `data:` address of an image, at least 96 pixels wide, or scalable. */
  icon: string;
  /** The wallet's domain, reversed. */
  rdns: string;
}

const ICON = `data:image/svg+xml,${encodeURIComponent(
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><rect width="96" height="96" rx="20" fill="#1d3a5f"/>' +
    '<circle cx="38" cy="48" r="20" fill="none" stroke="#fff" stroke-width="7"/>' +
    '<circle cx="58" cy="48" r="20" fill="none" stroke="#7fd1b9" stroke-width="7"/></svg>',
)}`;

/** Announces the provider now, and at each later request. Returns a function that ends that. */
export function announce(provider: DuetProvider, info: Partial<ProviderInfo> = {}): () => void {
  const detail = Object.freeze({
    info: Object.freeze({
      uuid: crypto.randomUUID(),
      name: "Duet",
      icon: ICON,
      rdns: "org.duet.signer",
      ...info,
    }),
    provider,
  });
  const say = (): void => {
    window.dispatchEvent(new CustomEvent("eip6963:announceProvider", { detail }));
  };
  window.addEventListener("eip6963:requestProvider", say);
  say();
  return () => window.removeEventListener("eip6963:requestProvider", say);
}

/** For callers who want to tell the library's own errors apart. */
export { Failure };
