"""Every setting: an environment variable `TREADLE_<NAME>` with a default. docs/configuration.md is made from this file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from server import setting_forms as forms
from server.data_dir import default_data_dir
from server.kernel.egress import parse_ceiling

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_LOWER = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
LogFormat = Annotated[Literal["console", "json"], _LOWER]


def also(name: str, usual: str) -> AliasChoices:
    """A setting that is found under the variable that everybody else uses for it, too; ours wins."""
    return AliasChoices(f"treadle_{name}", usual.lower())


class WorkerSettings(BaseSettings):
    """What the main server and the spawner must agree about."""

    model_config = SettingsConfigDict(env_prefix="TREADLE_", extra="forbid", frozen=True, populate_by_name=True)

    data_dir: Path = Field(
        default_factory=default_data_dir, description="Directory for everything that must survive: identity, mirrors, objects, keys."
    )
    worker_root: Path | None = Field(
        None,
        description="Directory for workers' slots; default `<data_dir>/workers`. Must be short: socket paths end at 107 bytes. "
        "With launcher `docker` the same path for the server, the spawner and the engine.",
    )
    spawner_socket: Annotated[Path | None, AfterValidator(forms.socket_path)] = Field(
        None, description="Socket of the spawner (launcher `docker`); default `<data_dir>/spawner.sock`."
    )
    spawner_tcp: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "",
        description="`host:port` of a spawner on another machine (launcher `swarm`), by which the server calls it and at which it listens; "
        "empty for its socket.",
    )
    spawner_key: Annotated[Path | None, AfterValidator(forms.readable)] = Field(
        None,
        description="By what they know each other there (PEM, one file for each): private key and certificate of its own, then the "
        "other's certificate. `tools/swarm-secrets` makes both, for a Swarm.",
    )
    worker_orphan_seconds: Seconds = Field(600, description="A worker that hears no server for this long kills its agent and exits.")
    worker_memory_mib: int = Field(
        8192,
        ge=0,
        description="Memory in MiB that a worker may take: all of it together (launcher `docker`, at least 256), or each of its processes "
        "(launcher `process`: RLIMIT_DATA, 0 for no limit).",
    )

    log_format: LogFormat = Field("console", description="`console` or `json`.")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _LOWER] = Field(
        "info", description="`debug`, `info`, `warning` or `error`."
    )

    @property
    def slots_dir(self) -> Path:
        """Where workers' slots are."""
        return self.worker_root or self.data_dir / "workers"

    @property
    def spawner_address(self) -> Path:
        """Where the spawner listens."""
        return self.spawner_socket or self.data_dir / "spawner.sock"


class Settings(WorkerSettings):
    """The main server's settings."""

    # -- where it listens
    listen: Annotated[str, AfterValidator(forms.address)] = Field(
        "127.0.0.1:7433", description="Address of the gRPC API, `host:port`; port 0 picks a free one."
    )
    metrics_listen: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "127.0.0.1:7434", description="Address of the Prometheus metrics page, `host:port`; empty for none."
    )
    gateway_listen: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "127.0.0.1:7430", description="Address of the gateway (Envoy) that `treadle up` starts, `host:port`; empty for none."
    )
    gateway_metrics_listen: Annotated[str, AfterValidator(forms.optional_address)] = Field(
        "127.0.0.1:7431", description="Address of Envoy's own Prometheus metrics page, `host:port`; empty for none."
    )
    gateway_origins: Annotated[str, AfterValidator(forms.origins)] = Field(
        "", description="Web pages that may call through it, by comma, as browsers name them: `https://example.org`."
    )
    sample_port: int = Field(
        7435, ge=0, le=65535, description="Port of the sample repository of `treadle up`, on loopback; 0 picks a free one, and keeps it."
    )
    gateway_tls_certificate: Annotated[Path | None, AfterValidator(forms.readable)] = Field(
        None, description="Certificate chain (PEM) of the gateway; without it, no TLS."
    )
    gateway_tls_key: Annotated[Path | None, AfterValidator(forms.readable)] = Field(
        None, validate_default=True, description="Its private key (PEM)."
    )

    # -- adapters, by the name of their entry point
    launcher: Annotated[str, AfterValidator(forms.name_of("launcher"))] = Field(
        "process", description="How workers are started: `process`, `docker` or `swarm`."
    )
    object_store: Annotated[str, AfterValidator(forms.name_of("object_store"))] = Field(
        "filesystem", description="Where snapshots go: `filesystem` or `s3`."
    )

    # -- database
    database_url: SecretStr = Field(SecretStr(""), description="Postgres, as the role `treadle_app` (callers' queries).")
    database_system_url: SecretStr = Field(SecretStr(""), description="Postgres, as the role `treadle_system` (journal, leases).")
    database_owner_url: SecretStr = Field(
        SecretStr(""), description="Postgres, as the owner of the tables (migrations); empty to skip them."
    )

    github_apis: Annotated[str, AfterValidator(forms.host_urls)] = Field(
        "github.com=https://api.github.com",
        description="Hosts that are GitHub, and the URLs of their APIs, by comma. A host is one of those two settings. For an "
        "Enterprise Server: `https://github.example.org/=https://github.example.org/api/v3`.",
    )
    github_client_id: Annotated[str, AfterValidator(forms.by_host)] = Field(
        "",
        description="Of a GitHub App or OAuth app with the device flow enabled: users log in by it (`treadle credential login`), and their "
        "expiring tokens are renewed. For several hosts: `host=ID`, by comma.",
    )
    github_client_secret: Annotated[SecretStr, AfterValidator(forms.secret_by_host)] = Field(
        SecretStr(""), description="Its secret, in the same form."
    )
    github_webhook_secret: SecretStr = Field(
        SecretStr(""),
        description="What GitHub signs its webhooks with (`POST /v1/webhooks/github`): of a GitHub App, or of repositories. Several by "
        "comma are all taken, so that it can be changed: `NEW,OLD`, then at GitHub, then `NEW`. Empty to take none.",
    )
    vault_key: SecretStr = Field(
        SecretStr(""),
        description="Key that seals users' credentials in the database: 32 bytes in base64 (`openssl rand -base64 32`), the same for all "
        "servers. Others may follow, by comma: what they sealed can be read, and is sealed anew under the first when a server starts. To "
        "change the key, give all servers `OLD,NEW`, then all `NEW,OLD`, then all `NEW`. Empty for the keys, a line each, of the file "
        "`<data_dir>/vault-key`, which is made.",
    )

    # -- object store `s3`
    s3_endpoint: str = Field("", description="`host:port` of an S3 server.")
    s3_bucket: Annotated[str, AfterValidator(forms.bucket)] = Field("treadle", description="Its bucket; made when missing.")
    s3_access_key: str = Field("", description="Its access key.")
    s3_secret_key: SecretStr = Field(SecretStr(""), description="Its secret key.")
    s3_secure: bool = Field(True, description="Whether it speaks TLS.")
    legacy_bucket: str = Field(
        "",
        description="A bucket on it that the system before Treadle uses: every session is written there after each turn, so that both "
        "go on from it; empty for none.",
    )

    # -- Git
    git_allowed_hosts: str = Field(
        "github.com,gitlab.com,bitbucket.org,codeberg.org", description="Hosts that `https` repositories may be on, by comma."
    )
    git_allowed_prefixes: Annotated[str, AfterValidator(forms.git_prefixes)] = Field(
        "",
        description="Exact URL prefixes that are allowed besides, by comma: also `http`, also private addresses. Each ends with `/`.",
    )
    git_plain_credentials: bool = Field(
        False,
        description="Whether users' tokens are also shown to prefixes that begin with `http://`, where anybody on the way can read them. "
        "To this machine itself (127.0.0.1) they are in any case.",
    )
    git_timeout_seconds: Seconds = Field(300, description="Limit for one fetch or push.")
    workspace_history: int = Field(
        200,
        ge=0,
        description="How many commits of history the agent's copy of a repository of more than 16 MiB has; `git log` ends there, but never "
        "above the merge base with the base branch. 0 for all, which takes some seconds for each GiB.",
    )
    branch_prefix: Annotated[str, AfterValidator(forms.branch_prefix)] = Field(
        "treadle/", description="Prefix of branch names that Treadle makes."
    )
    commit_coauthor: Annotated[str, AfterValidator(forms.commit_coauthor)] = Field(
        "",
        description="A `Co-authored-by` line below every commit's message: `Name <address>`, or `agent` for the agent's usual one. The "
        "author is always the user.",
    )
    session_link: Annotated[str, AfterValidator(forms.session_link)] = Field(
        "",
        description="A `Session` line below every commit's message: an http or https URL with `{session_id}` in it, as in "
        "`https://treadle.example/sessions/{session_id}`.",
    )

    # -- turns
    default_provider: str = Field(
        "",
        description="The agent of a session that names none; empty for `claude` where it is installed (with launcher `docker`: where it "
        "has an image) and has a credential, else `replay`.",
    )
    worker_pool: Annotated[str, AfterValidator(forms.worker_pool)] = Field(
        "",
        description="How many workers wait ready for a turn (launcher `docker`), for each agent, by comma: `claude=2,replay=1`. "
        "A turn that finds none starts its own.",
    )
    worker_pool_refill_seconds: float = Field(
        0.5,
        ge=0,
        allow_inf_nan=False,
        description="How long after a turn took a waiting worker the next one is made: the turn starts first.",
    )
    max_turns: int = Field(64, ge=1, description="Turns that one server runs at a time; others wait for a place.")
    max_turns_per_user: int = Field(0, ge=0, description="Turns of one user that all servers run at a time; 0 for no limit.")
    max_turns_per_tenant: int = Field(0, ge=0, description="The same for all users of a tenant together.")
    max_waiting_turns: int = Field(1000, ge=0, description="Turns of one user that may wait for a place; 0 for no limit.")
    max_waiting_turns_per_tenant: int = Field(10000, ge=0, description="The same for all users of a tenant together.")
    agent_steps: int = Field(200, ge=0, description="How often an agent may ask its model in one turn; 0 for no limit.")
    turn_timeout_seconds: Seconds = Field(
        3600, description="Limit for the agent's part of a turn, without the time in which it waits for people."
    )
    request_timeout_seconds: float = Field(
        86400,
        ge=0,
        allow_inf_nan=False,
        description="How long an agent's approval or question waits for its answer before it expires; 0 for ever.",
    )
    worker_disk_mib: int = Field(
        20_480,
        ge=0,
        description="Disk in MiB that a workspace may take, its repository counted; a turn that takes more is stopped (looked at every "
        "2 s, large trees less often, at least twice a minute). 0 for no limit.",
    )
    worker_files: int = Field(
        1_000_000, ge=0, description="Files and directories that a workspace may have, those of its repository counted, in the same way."
    )
    worker_start_seconds: Seconds = Field(30, description="Limit for a worker's start.")
    unsandboxed: bool = Field(
        False, description="Run agents without a sandbox where none works. Only for machines that hold nothing of value."
    )
    import_retry_seconds: Seconds = Field(
        60, description="How long a workspace that cannot be read back after a turn is tried again; then it is kept where it is."
    )
    checkpoint_seconds: float = Field(
        300,
        ge=0,
        description="How often the work of a running turn is kept as a checkpoint, if it changed: a lost machine takes what "
        "came after the last one. Seldomer where reading it would take over a twentieth of the time. 0 for never.",
    )
    retention_days: float = Field(
        0,
        ge=0,
        description="How long a snapshot is kept that is not its session's newest, in days; 0 for ever. Checkpoints of turns that have "
        "ended are kept for a day.",
    )
    storage_tenant_mib: int = Field(
        0,
        ge=0,
        description="What the snapshots of a tenant's sessions may take in the object store, in MiB; then no turn, edit or fork begins "
        "until some of its sessions are deleted. 0 for no limit.",
    )
    upload_mib: int = Field(
        512,
        ge=1,
        le=65536,
        description="How large a file may be that a user writes into a session, in MiB. A code host may take less: GitHub refuses a push "
        "with a file of more than 100 MiB, and no turn of the session is pushed until it is gone from its history.",
    )
    snapshot_retry_seconds: Seconds = Field(
        30, description="How often snapshots that could not be stored, and objects that could not be deleted, are tried again."
    )

    # -- models: where they are, and the server's credentials for them; no worker ever gets one
    anthropic_url: str = Field(
        "https://api.anthropic.com", description="Where requests in Anthropic's format go; plain `http` only for a host that you trust."
    )
    openai_url: str = Field("https://api.openai.com", description="The same for OpenAI's format.")
    anthropic_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=also("anthropic_api_key", "ANTHROPIC_API_KEY"), description="API key; also `ANTHROPIC_API_KEY`."
    )
    claude_oauth_token: SecretStr = Field(
        SecretStr(""),
        validation_alias=also("claude_oauth_token", "CLAUDE_CODE_OAUTH_TOKEN"),
        description="Token of a Claude subscription, used when there is no API key; also `CLAUDE_CODE_OAUTH_TOKEN`.",
    )
    claude_credentials: Path | None = Field(
        None,
        description="File with a renewable login of a Claude subscription (`.credentials.json`), used when there is neither; "
        "the server renews the login and writes it back.",
    )
    claude_refresh_url: str = Field("https://platform.claude.com/v1/oauth/token", description="Where that login is renewed.")
    claude_client_id: str = Field("9d1c250a-e61b-44d9-88ed-5944d1962f5e", description="As which program: Claude Code's public id.")
    openai_api_key: SecretStr = Field(
        SecretStr(""), validation_alias=also("openai_api_key", "OPENAI_API_KEY"), description="API key; also `OPENAI_API_KEY`."
    )
    models: str = Field("claude-*,gpt-*,o[0-9]*,codex-*", description="Models that agents may use, by comma, with `*`.")
    model_fields_allowed: str = Field(
        "", description="Top-level fields of model requests that are let through besides the known ones, by comma."
    )
    model_request_bytes: int = Field(32 * 1024 * 1024, ge=1, description="Largest request to a model.")
    model_retries: int = Field(3, ge=0, description="How often a request that a provider could not take is tried again.")
    model_retry_seconds: float = Field(
        60, ge=0, allow_inf_nan=False, description="Longest wait before such a try; a provider that asks for more gets no more tries."
    )
    model_first_byte_seconds: Seconds = Field(
        120, description="How long a model may take to begin an answer that is streamed; then the request is tried again."
    )
    model_silence_seconds: Seconds = Field(
        300, description="How long an answer that has begun may stand still; then it is cut off, and its agent may ask again."
    )
    model_prices: dict[str, dict[str, float]] = Field(
        {},
        description="Prices that Treadle does not know or has wrong, as JSON: beginning of the model's name -> `input`, `output`, "
        "`cache_read`, `cache_write`, `cache_write_hour` -> US dollars per million tokens (which is micros per token). "
        "`long`, `long_input` and `long_output`: the prices of requests with more than `long` tokens of input.",
    )
    budget_turn_tokens: int = Field(0, ge=0, description="Tokens that one turn may use, cached ones too; 0 for no limit.")
    budget_turn_usd: float = Field(0, ge=0, description="US dollars (estimated) that one turn may cost; 0 for no limit.")
    budget_day_tokens: int = Field(0, ge=0, description="Tokens that one user may use on one day (UTC); 0 for no limit.")
    budget_day_usd: float = Field(0, ge=0, description="US dollars (estimated) that one user may cost on one day (UTC); 0 for no limit.")
    model_use_days: int = Field(400, ge=2, description="Days for which is kept what each request to a model used.")
    naming: bool = Field(True, description="Whether a small model makes titles, branch names and commit messages of turns that use one.")
    naming_model: str = Field("", description="That model; by default `claude-haiku-4-5`, or `gpt-5-nano` where only OpenAI has a key.")
    naming_seconds: Seconds = Field(3, description="Limit for it; then names are made by rule.")

    # -- the way out of workers
    egress_hosts: Annotated[str, AfterValidator(forms.egress_hosts)] = Field(
        "",
        description="Where sessions may let their workers connect to, by comma: `index.example.org`, `*.packages.example.org` (all names "
        "below it), `example.org:80`; without a port 443. `*`: every public host, on ports 443 and 80. Never addresses of "
        "this machine's own interfaces, unless they are in TREADLE_EGRESS_NETWORKS. Empty for nowhere.",
    )
    egress_networks: Annotated[str, AfterValidator(forms.networks)] = Field(
        "",
        description="Private networks in which hosts may be that TREADLE_EGRESS_HOSTS names, by comma: `10.1.0.0/16`. For a mirror of your "
        "own. Names that only `*` allows are never there: whoever owns one could point it at any machine of yours.",
    )
    egress_denied_networks: Annotated[str, AfterValidator(forms.networks)] = Field(
        "",
        description="Networks and addresses that no worker reaches, whatever else allows them, by comma: `192.0.2.7,2001:db8::/64`. For "
        "public addresses of machines of yours that others are kept from by a firewall.",
    )
    egress_proxy: Annotated[str, AfterValidator(forms.socket_or_address)] = Field(
        "",
        description="Envoy's listener for workers' connections: the path of its unix socket, or `host:port`. `treadle up` brings its own.",
    )
    egress_proxy_credential: SecretStr = Field(SecretStr(""), validate_default=True, description="What the server shows there.")
    egress_dns: Annotated[str, AfterValidator(forms.addresses)] = Field(
        "", description="Name servers for these hosts, `address:port` by comma; empty for the machine's own."
    )
    egress_turn_mib: int = Field(
        4096,
        ge=1,
        description="What one turn may send and receive there, in MiB. What was open when a server was killed is not counted.",
    )

    # -- streams
    heartbeat_seconds: Seconds = Field(15, description="A frame is sent after this much silence.")
    write_timeout_seconds: Seconds = Field(20, description="A follower that does not read for this long is cut off (it can resume).")
    lease_seconds: Seconds = Field(15, description="How long a replica's hold on a session lasts without renewal.")

    # -- logs and traces
    log_file: Path | None = Field(None, description="Where logs go; default standard error, with `treadle up` `<data_dir>/server.log`.")

    otlp_endpoint: Annotated[str, AfterValidator(forms.collector)] = Field(
        "", description="Where traces go: an OpenTelemetry collector (OTLP over gRPC), `http://host:4317` or `https://…`; empty for none."
    )

    @property
    def github_api_urls(self) -> dict[str, str]:
        """API by host."""
        return forms.urls_by_host(self.github_apis)

    @property
    def github_client_ids(self) -> dict[str, str]:
        """By host; "" for all others."""
        return forms.values_by_host(self.github_client_id)

    @property
    def github_client_secrets(self) -> dict[str, str]:
        """By host; "" for all others."""
        return forms.values_by_host(self.github_client_secret.get_secret_value())

    @property
    def github_webhook_secrets(self) -> tuple[str, ...]:
        """Each of them."""
        return forms.parts(self.github_webhook_secret.get_secret_value())

    @property
    def pool_sizes(self) -> dict[str, int]:
        """How many workers of each agent wait for a turn."""
        return forms.pool_sizes(self.worker_pool)

    @field_validator("metrics_listen", "gateway_listen", "gateway_metrics_listen")
    @classmethod
    def _not_twice(cls, address: str, info: ValidationInfo) -> str:
        for other in ("listen", "metrics_listen", "gateway_listen"):
            if other != info.field_name and address == info.data.get(other) and address and not address.endswith(":0"):
                raise ValueError(f"{address} is TREADLE_{other.upper()} already")
        return address

    @field_validator("egress_networks")
    @classmethod
    def _somebodys(cls, networks: str, info: ValidationInfo) -> str:
        hosts = parse_ceiling(info.data.get("egress_hosts", ""))
        if networks and hosts and not hosts.naming:
            raise ValueError(
                "TREADLE_EGRESS_HOSTS has only `*`, which leads to none of them; name those hosts too: *,mirror.example.org:80"
            )
        return networks

    @field_validator("egress_proxy_credential")
    @classmethod
    def _shown(cls, credential: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("egress_proxy") and not credential.get_secret_value():
            raise ValueError("it is needed with TREADLE_EGRESS_PROXY; Envoy lets nobody out who shows none")
        return credential

    @field_validator("default_provider")
    @classmethod
    def _agent(cls, name: str, info: ValidationInfo) -> str:
        return forms.agent(name, info.data)

    @field_validator("gateway_tls_key")
    @classmethod
    def _both_or_none(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        return forms.both_or_none(key, info.data)


def invalid_settings(error: ValidationError, settings: type[BaseSettings] = Settings) -> list[str]:
    """One sentence for each setting that does not fit. Values are named by our own validators only: others' may be secrets."""
    told = []
    for each in error.errors(include_url=False, include_input=False):
        said = each["msg"].removeprefix("Value error, ")
        name = str(each["loc"][0])
        # A field that has other names too is told by the one under which its value was found.
        variable = f"TREADLE_{name.upper()}" if name in settings.model_fields else name.upper()
        told.append(f"{variable}: {said[:1].lower()}{said[1:]}")
    return told
