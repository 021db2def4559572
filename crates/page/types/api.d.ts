// The types of the OpenAPI document, written by tests/page/types.mjs.

export type Status = { "version": string; "uptime_s": number; "memory": MemoryStatus; "packets": PacketCounts; "bytes": ByteCounts; "dropped": { [name: string]: number; }; "retained": Retained; "ranks": (RankStatus)[]; "sessions": SessionCounts; "coverage"?: (Coverage)[]; "largest"?: (Largest)[]; "largest_hosts"?: (LargestHost)[]; "carried": CarriedCounts; "compression"?: CompressionCounts; "classes"?: (ClassStatus)[]; "pins"?: PinCounts; "interfaces": (InterfaceStatus)[]; "interface_gaps"?: (InterfaceGapStatus)[]; "interface_gaps_total"?: number; "oddities": OddityCounts; "capture": CaptureStatus; "input"?: InputStatus; "sandbox"?: SandboxStatus; "processes"?: ProcessNaming; "spool"?: SpoolStatus | null; "restart"?: RestartStatus; };
export type MemoryStatus = { "budget_bytes": number; "used_bytes": number; "rings_bytes": number; "segments_bytes": number; "sessions_bytes": number; "ledger_bytes": number; "queries_bytes": number; "compression_bytes"?: number; "spool_bytes"?: number; "resident_bytes": number; };
export type PacketCounts = { "received": number; "stored": number; "filtered": number; "dropped": number; "kernel_dropped": number; "retained": number; "evicted": number; };
export type ByteCounts = { "received": number; "stored": number; "filtered": number; "dropped": number; "retained": number; "evicted": number; };
export type Retained = { "oldest"?: string | null; "newest"?: string | null; "whole_since"?: string | null; };
export type RankStatus = { "rank": number; "offset_from": number; "segments": number; "bytes": number; "compressed_bytes": number; "compressed_raw_bytes"?: number; "oldest"?: string | null; };
export type SessionCounts = { "live": number; "ledger": number; "capacity": number; "unlisted"?: number; };
export type Coverage = { "period": "1m" | "10m" | "1h" | "1d" | "all"; "sessions": number; "first_packet": number; "first_kb": number; "first_10kb": number; "whole": number; };
export type Largest = { "flow": Flow; "kept_bytes": number; };
export type Flow = { "id"?: string; "first": string; "last": string; "proto": string; "originator": FlowEndpoint; "responder": FlowEndpoint; "interface": string; "packets": FlowCount; "bytes": FlowCount; "kept_bytes": number; "kept_packets": number; "kept_unknown"?: boolean; "cut_at"?: string | null; "holes"?: number; "state": string; "community_id"?: string | null; "vlan"?: number | null; "server_name"?: string | null; "http_host"?: string | null; "dns_question"?: string | null; "dns_type"?: string | null; "process"?: FlowProcess | null; "other_process"?: FlowProcess | null; "process_unknown"?: string | null; "nat"?: Nat | null; "app"?: FlowApp | null; };
export type FlowEndpoint = { "ip"?: string | null; "port": number; "mac"?: string | null; };
export type FlowCount = { "originator": number; "responder": number; };
export type FlowProcess = { "pid"?: number | null; "name"?: string | null; "path"?: string | null; "uid": number; "ppid"?: number | null; "start_ticks"?: number | null; "container"?: string | null; "pod"?: string | null; "unit"?: string | null; "other_namespace"?: boolean; "place_unknown"?: boolean; "source": Source; "certainty": Certainty; "end": SessionEnd; };
export type Source = "ebpf" | "sock_diag";
export type Certainty = "socket" | "port" | "program" | "user_only";
export type SessionEnd = "originator" | "responder";
export type Nat = { "side": NatSide; "originator": NatEnd; "responder": NatEnd; };
export type NatSide = "before" | "after";
export type NatEnd = { "ip": string; "port": number; };
export type FlowApp = { "name": string; "words"?: (string)[]; };
export type LargestHost = { "ip"?: string | null; "mac"?: string | null; "sessions": number; "kept_bytes": number; };
export type CarriedCounts = { "packets": number; "bytes": number; "lost": number; "headless_sessions"?: number; "untracked_sessions"?: number; };
export type CompressionCounts = { "segments": number; "raw_bytes": number; "compressed_bytes": number; "incompressible_segments": number; "cpu_s": number; };
export type ClassStatus = { "name": string; "bytes": number; "reserve_bytes": number; };
export type PinCounts = { "count": number; "bytes": number; "limit_bytes": number; "refused_packets": number; };
export type InterfaceStatus = { "name": string; "index": number; "link_type": string; "packets": number; "bytes": number; "up": boolean; "gone"?: string | null; };
export type InterfaceGapStatus = { "interface": string; "index": number; "from": string; "until"?: string | null; "reason": "down" | "gone" | "renamed"; "renamed_to"?: string | null; };
export type OddityCounts = { "truncated": number; "cut_headers": number; "malformed": number; "too_deep": number; "out_of_order": number; };
export type CaptureStatus = { "workers": number; "filter"?: string | null; "interfaces": (string)[]; };
export type InputStatus = { "times_changed": number; "times_missing"?: number; "annotations": { [name: string]: number; }; "left_out": { [name: string]: number; }; };
export type SandboxStatus = { "mode": "required" | "best-effort" | "off"; "uid": number; "gid": number; "capabilities": string; "no_new_privs": boolean; "dumpable": boolean; "seccomp": SeccompStatus; "landlock": LandlockStatus; "missing": (string)[]; "kept_privileges"?: (string)[]; };
export type SeccompStatus = { "enforced": boolean; "filters": number; "roles": (string)[]; "unrestricted_threads"?: number; };
export type LandlockStatus = { "abi": number; "enforced": "full" | "partial" | "none"; "readable": (string)[]; "writable": (string)[]; };
export type ProcessNaming = { "method"?: Source | null; "reason"?: string | null; "sockets": number; "forgotten": number; "lost": number; "nat_unseen"?: string | null; };
export type SpoolStatus = { "dir": string; "state": string; "problem"?: string | null; "budget_bytes": number; "used_bytes": number; "files": number; "oldest"?: string | null; "whole_since"?: string | null; "behind_packets": number; "behind_bytes": number; "written_packets": number; "written_bytes": number; "lost_packets": number; "lost": SpoolLost; "removed_packets": number; "failures"?: number; "writes"?: DiskTimes; "syncs"?: DiskTimes; "bands": (SpoolBand)[]; "log"?: SessionLogStatus | null; };
export type SpoolLost = { "too_slow": number; "no_room": number; "failed": number; };
export type DiskTimes = { "count": number; "sum_us": number; "buckets": (DiskTimeBucket)[]; };
export type DiskTimeBucket = { "up_to_us"?: number | null; "count": number; };
export type SpoolBand = { "band": number; "offset_from": number; "files": number; "bytes": number; "oldest"?: string | null; };
export type SessionLogStatus = { "files": number; "bytes": number; "oldest"?: string | null; "rows": number; "missed_sessions": number; "lost_rows": number; "removed_files": number; "problem"?: string | null; };
export type RestartStatus = { "packets": number; "bytes": number; "sessions": number; "pins": number; "lost_packets": number; "recording_since"?: string | null; "gap_from"?: string | null; "gap_until"?: string | null; "gap_s": number; "gaps": number; "problem"?: string | null; };
export type Selections = { "selections": (Selection)[]; "answer"?: Arrangement; "whole_sessions"?: boolean; "community_id_seed"?: number | null; "filter"?: string; "interface"?: string | null; "format"?: FileFormat; "precision"?: FilePrecision; };
export type Selection = { "flow"?: string | null; "host"?: string | null; "community_id"?: string | null; "since"?: string | null; "until"?: string | null; };
export type Arrangement = "file" | "lines" | "split";
export type FileFormat = "pcapng" | "pcap";
export type FilePrecision = "nano" | "micro";
export type Piece = { "selection"?: number | null; "data": string; "packets": number; "part": number; };
export type Outcome = { "selection": number; "packets": number; "bytes": number; "first"?: string | null; "last"?: string | null; "sessions": number; "same_as"?: number | null; "missing"?: Missing | null; };
export type Missing = { "cause": string; "detail": string; "horizon"?: string | null; "not_opened": (NotOpened)[]; };
export type NotOpened = { "header": string; "reason": string; "packets": number; };
export type Total = { "done": boolean; "packets": number; "bytes": number; "overtaken": number; "note": string; };
export type Sum = { "host"?: string | null; "peer"?: string | null; "proto"?: string | null; "port"?: number | null; "process"?: string | null; "container"?: string | null; "sessions": number; "bytes": Directions; "packets": Directions; "first": string; "last": string; };
export type Directions = { "out": number; "in": number; };
export type Match = { "time": string; "rule": string; "kind": string; "flow": SeenSession; "direction"?: string | null; "stream_offset"?: number | null; "packet": PacketPlace; "length": number; "context_hex": string; "gap_before": boolean; "file"?: MatchedObject | null; "stage"?: string | null; "detail"?: string | null; };
export type SeenSession = { "first": string; "last": string; "proto": string; "originator": FlowEndpoint; "responder": FlowEndpoint; "interface": string; "packets": FlowCount; "bytes": FlowCount; "community_id"?: string | null; "vlan"?: number | null; };
export type PacketPlace = { "time": string; "sequence": number; };
export type MatchedObject = { "name": string; "mime": string; "size": number; "sha256": string; "complete": boolean; "protocol": string; "source": string; };
export type OwnRule = { "rule": string; };
export type Candidates = { "literals"?: (string)[]; "addresses"?: (string)[]; "objects"?: boolean; };
export type Object = { "time": string; "protocol": string; "name": string; "mime": string; "mime_declared": string; "size": number; "size_declared"?: number | null; "complete": boolean; "unpacked"?: boolean | null; "missing_bytes": number; "md5": string; "sha1": string; "sha256": string; "flow": SeenSession; "direction": string; "source": string; "path"?: string | null; "number": number; "part_of"?: number | null; "packet": PacketPlace; "stream_offset": number; "holes": (Hole)[]; "notes": (string)[]; };
export type Hole = { "offset": number; "length": number; };
export type Pins = { "pins": (Pin)[]; "used_bytes": number; "limit_bytes": number; };
export type Pin = { "id": number; "filter": string; "since": string; "until": string; "sessions": number; "kept_packets": number; "note"?: string | null; "kept_bytes": number; "pinned_bytes": number; "refused_packets": number; };
export type NewPin = { "filter": string; "for_s": number; "hunt"?: boolean; };
export type ColumnsEnd = { "as_of"?: string | null; "sessions": number; "columns": (string)[]; "states": (string)[]; "interfaces": (string)[]; "note": string; };
export type Timeline = { "since": string; "until": string; "span_ns": number; "sessions": (number)[]; "first_packet": (number)[]; "first_kb": (number)[]; "first_10kb": (number)[]; "whole": (number)[]; "bytes": (number)[]; "kept_bytes": (number)[]; "whole_since"?: string | null; "gaps": (TimelineGap)[]; "drops": (TimelineDrops)[]; };
export type TimelineGap = { "since": string; "until": string; "interface": string; };
export type TimelineDrops = { "since": string; "until": string; "packets": number; };
export type PacketLine = { "time": string; "text": string; "interface": string; "link_type": number; "length": number; "captured": number; "data": string; };
export type StreamPart = { "session": number; "originator"?: string | null; "responder"?: string | null; "direction": string; "offset": number; "length": number; "time"?: string | null; "data"?: string | null; "gap"?: string | null; "conflict"?: boolean; };
export type SessionMessage = { "session": number; "originator"?: string | null; "responder"?: string | null; "direction": string; "time"?: string | null; "offset": number; "length": number; "app": string; "name": string; "words": (string)[]; "fields": { [name: string]: MessageValue; }; };
export type MessageValue = number | string;
export type PageVisitor = { "who": string; "roles": (string)[]; "host": string; "version": string; "socket": string; "dissector": boolean; "idle_s"?: number | null; };
export type NewPageLink = { "browser_uid"?: number | null; };
export type PageLink = { "url": string; "idle_s": number; };
export type PageExchange = { "link": string; };
export type PageToken = { "token": string; };
export type Health = { "status": HealthStatus; "reasons": (HealthReason)[]; };
export type HealthStatus = "ready" | "degraded";
export type HealthReason = { "code": HealthCode; "detail": string; };
export type HealthCode = "not_recording" | "worker_stuck" | "kernel_drops" | "interfaces_full" | "horizon_short" | "pins_full" | "not_locked" | "sandbox" | "audit" | "certificate" | "spool";
export type Problem = { "type": string; "title": string; "status": number; "detail": string; "cause"?: "nothing_recorded" | "before_horizon" | "after_newest" | "in_future" | "cut" | "filtered" | "dropped" | "too_many" | "not_recorded" | "not_opened" | "encrypted" | "cut_headers" | "quoted" | "encapsulated" | "fragment" | "undecided" | "not_watched" | "link_type" | "never_seen"; "not_opened"?: (NotOpened)[]; };

// A value of a parameter; a list repeats it.
export type Value = string | number | boolean | string[] | null | undefined;

export interface Answers {
  "GET /v1/status": Status;
  "GET /v1/spool": SpoolStatus | null;
  "GET /v1/pins": Pins;
  "POST /v1/pins": Pin;
  "GET /v1/timeline": Timeline;
  "GET /v1/page": PageVisitor;
  "POST /v1/page": PageLink;
  "POST /v1/page/session": PageToken;
  "GET /v1/health": Health;
  "GET /v1/openapi.json": Record<string, unknown>;
}

export interface Lines {
  "POST /v1/packets": Partial<Piece> & Partial<Outcome> & Partial<Total>;
  "GET /v1/flows": Partial<Flow> & Partial<Sum>;
  "GET /v1/hunt": Match;
  "POST /v1/hunt/rule": Match;
  "GET /v1/files": Object;
  "GET /v1/lines": PacketLine;
  "GET /v1/streams": StreamPart;
  "GET /v1/messages": SessionMessage;
}

export interface Questions {
  "GET /v1/status": {  };
  "GET /v1/spool": {  };
  "GET /v1/packets": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "follow"?: Value; "carried-by"?: Value; "whole-sessions"?: Value; "dedup"?: Value; "app"?: Value; "seal"?: Value; "count"?: Value; "c"?: Value; "format"?: Value; "precision"?: Value; "nano"?: Value; "micro"?: Value; };
  "POST /v1/packets": {  };
  "GET /v1/flows": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "sort"?: Value; "limit"?: Value; "after"?: Value; "id"?: Value; "name"?: Value; "process"?: Value; "container"?: Value; "app"?: Value; "by"?: Value; };
  "GET /v1/hunt": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "text"?: Value; "bytes"?: Value; "regex"?: Value; "ioc"?: Value; "attack"?: Value; "in"?: Value; "limit"?: Value; };
  "POST /v1/hunt": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; };
  "POST /v1/hunt/rule": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "limit"?: Value; };
  "GET /v1/files": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "kind"?: Value; "type"?: Value; "sha256"?: Value; "min"?: Value; "limit"?: Value; };
  "GET /v1/files/{id}": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; };
  "GET /v1/pins": {  };
  "POST /v1/pins": {  };
  "DELETE /v1/pins": { "id"?: Value; };
  "GET /v1/columns": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; };
  "GET /v1/timeline": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "spans"?: Value; };
  "GET /v1/lines": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "count"?: Value; };
  "GET /v1/streams": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "bytes"?: Value; };
  "GET /v1/messages": { "filter"?: Value; "expr"?: Value; "since"?: Value; "until"?: Value; "around"?: Value; "window"?: Value; "interface"?: Value; "community-id"?: Value; "community_id"?: Value; "community-id-seed"?: Value; "flow"?: Value; "address"?: Value; "port"?: Value; "from"?: Value; "count"?: Value; };
  "GET /v1/page": {  };
  "POST /v1/page": {  };
  "POST /v1/page/session": {  };
  "DELETE /v1/page/session": {  };
  "GET /": {  };
  "GET /page/{name}": {  };
  "GET /page/dissector/{name}": {  };
  "GET /v1/health": {  };
  "GET /v1/openapi.json": {  };
  "GET /metrics": {  };
}

export interface Bodies {
  "POST /v1/packets": Selections;
  "POST /v1/hunt": Candidates;
  "POST /v1/hunt/rule": OwnRule;
  "POST /v1/pins": NewPin;
  "POST /v1/page": NewPageLink;
  "POST /v1/page/session": PageExchange;
}
