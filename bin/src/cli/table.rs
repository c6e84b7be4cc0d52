//! Every command, in one table.

use clap::{ArgMatches, Command};

use super::command::Run;
use super::{Terminal, command_of, completion, later, typed};
use crate::commands::{
    agent, autopilot, catalog, config, debug, doctor, event, exec, info, intention, keygen, keyring, kv,
    kv_tree, lock, maint, members, membership, monitor, raft, reload, repair, rtt, services, snapshot, tls,
    usage, validate, version, watch,
};

/// What a command does.
#[derive(Clone, Copy)]
pub enum Action {
    /// It holds others.
    Group {
        /// A command line with one of them.
        example: &'static str,
    },
    /// It is Consul's and does not exist here yet.
    Later {
        /// Arguments with which it may be called.
        example: &'static str,
        /// Its flags.
        flags: &'static [&'static [&'static str]],
    },
    /// It runs.
    Run {
        /// Its flags.
        command: fn() -> Command,
        /// Its work; the result is the exit status.
        run: fn(&ArgMatches, &mut Terminal<'_>) -> u8,
    },
}

impl Action {
    /// What these options are for.
    const fn of<T: Run>() -> Action {
        Action::Run { command: command_of::<T>, run: ended::<T> }
    }
}

/// Runs a command, and says why if it fails.
fn ended<T: Run>(matches: &ArgMatches, terminal: &mut Terminal<'_>) -> u8 {
    match typed::<T>(matches).run(terminal) {
        Ok(()) => 0,
        Err(failure) => failure.end(terminal),
    }
}

/// A command.
pub struct Entry {
    /// Its words, separated by blanks.
    pub path: &'static str,
    /// What stands after its words in the usage line.
    pub arguments: &'static str,
    /// One line for lists of commands.
    pub summary: &'static str,
    /// A longer description with an example; `PROGRAM` stands for the program's name.
    pub about: &'static str,
    /// What it does.
    pub action: Action,
}

impl Entry {
    /// The command with its arguments.
    #[must_use]
    pub fn usage(&self) -> String {
        let arguments = match self.action {
            Action::Group { .. } => "<subcommand> [options] [args]",
            Action::Later { .. } | Action::Run { .. } => self.arguments,
        };
        format!("{} {arguments}", self.path).trim_end().to_owned()
    }
}

/// All commands, those that exist first.
pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    AVAILABLE.iter().chain(later::LATER)
}

/// A command that holds others: its words, what it is for, and one of the others with arguments as an example.
pub(super) const fn group(path: &'static str, summary: &'static str, example: &'static str) -> Entry {
    Entry { path, arguments: "", summary, about: "", action: Action::Group { example } }
}

static AVAILABLE: &[Entry] = &[
    Entry {
        path: "agent",
        arguments: "[options]",
        summary: "Runs an agent",
        about: "Runs an agent until it is interrupted. A server keeps the cluster's state, a client\n\
                agent serves the programs on its machine and asks servers.\n\n\
                To try things out, a server that keeps everything in memory:\n\n    $ PROGRAM agent -dev\n\n\
                A single server that keeps its state on disk:\n\n\
                \x20   $ PROGRAM agent -server -bootstrap -data-dir=/var/lib/proconsul -config-dir=/etc/proconsul.d\n",
        action: Action::Run { command: agent::command, run: agent::main },
    },
    group("catalog", "Looks things up in the catalog", "catalog nodes -service=redis"),
    Entry {
        path: "catalog datacenters",
        arguments: "[options]",
        summary: "Lists the known datacenters",
        about: "Prints the name of every datacenter that the agent knows, one per line.\n\n    $ PROGRAM catalog datacenters\n",
        action: Action::of::<catalog::DatacentersOptions>(),
    },
    Entry {
        path: "catalog nodes",
        arguments: "[options]",
        summary: "Lists nodes",
        about: "Prints the nodes of the catalog as a table. Those that provide a service:\n\n    $ PROGRAM catalog nodes -service=redis\n",
        action: Action::of::<catalog::NodesOptions>(),
    },
    Entry {
        path: "catalog services",
        arguments: "[options]",
        summary: "Lists services",
        about: "Prints the names of all registered services. With their tags, on one node:\n\n    $ PROGRAM catalog services -tags -node=web-1\n",
        action: Action::of::<catalog::ServicesOptions>(),
    },
    group("kv", "Reads and writes keys", "kv put redis/connections 5"),
    Entry {
        path: "kv delete",
        arguments: "[options] KEY_OR_PREFIX",
        summary: "Removes keys",
        about: "Removes a key; removing a key that does not exist is no error. With -recurse, removes\n\
                everything below a prefix:\n\n    $ PROGRAM kv delete -recurse redis/\n",
        action: Action::of::<kv::DeleteOptions>(),
    },
    Entry {
        path: "kv get",
        arguments: "[options] [KEY_OR_PREFIX]",
        summary: "Reads or lists keys",
        about: "Prints the value of a key. With -recurse all keys below a prefix with their values,\n\
                with -keys their names only:\n\n    $ PROGRAM kv get -keys redis/\n",
        action: Action::of::<kv::GetOptions>(),
    },
    Entry {
        path: "kv put",
        arguments: "[options] KEY [DATA]",
        summary: "Writes a key",
        about: "Writes a value. DATA may be the value itself, @FILE for the content of a file, or - for\n\
                standard input:\n\n    $ PROGRAM kv put config/app @app.json\n",
        action: Action::of::<kv::PutOptions>(),
    },
    group("snapshot", "Saves and restores the cluster's state", "snapshot save backup.snap"),
    Entry {
        path: "snapshot save",
        arguments: "[options] FILE",
        summary: "Saves the state of the servers",
        about: "Writes keys, sessions, the catalog and all else that the servers know as of one moment into a\n\
                file, and makes sure that it is whole. The state is the leader's, or with -stale any server's:\n\n\
                \x20   $ PROGRAM snapshot save backup.snap\n",
        action: Action::Run { command: snapshot::command, run: snapshot::save },
    },
    Entry {
        path: "snapshot restore",
        arguments: "[options] FILE",
        summary: "Restores the state of the servers",
        about: "Replaces the state of all servers by that of a file, at once and as a whole. What was written\n\
                since is gone. A file that is damaged changes nothing:\n\n\
                \x20   $ PROGRAM snapshot restore backup.snap\n",
        action: Action::Run { command: snapshot::command, run: snapshot::restore },
    },
    Entry {
        path: "snapshot inspect",
        arguments: "FILE",
        summary: "Describes a saved state",
        about: "Makes sure that a file is whole, and prints what state it holds:\n\n    $ PROGRAM snapshot inspect backup.snap\n",
        action: Action::Run { command: snapshot::inspect_command, run: snapshot::inspect },
    },
    Entry {
        path: "snapshot decode",
        arguments: "FILE",
        summary: "Prints what a saved state holds",
        about: "Prints every row of a file as a line of JSON, with its table (Type), its length in bytes (Size) and its\n\
                fields as the HTTP API shows them (Data): values of keys are in base64. The first line describes the\n\
                file. A - is standard input:\n\n\
                \x20   $ PROGRAM snapshot decode backup.snap | jq 'select(.Type == \"KV\").Data.Key'\n",
        action: Action::Run { command: snapshot::inspect_command, run: snapshot::decode },
    },
    Entry {
        path: "snapshot agent",
        arguments: "",
        summary: "Says how to save regularly",
        about: "Exists in Consul Enterprise only. Run snapshot save from cron or a systemd timer instead:\n\n\
                \x20   $ PROGRAM snapshot save /var/backups/consul-$(date +%H).snap\n",
        action: Action::Run { command: snapshot::agent_command, run: snapshot::agent },
    },
    Entry {
        path: "kv export",
        arguments: "[options] [PREFIX]",
        summary: "Writes a tree as JSON",
        about: "Prints all keys below a prefix as JSON, values in base64, for kv import:\n\n    $ PROGRAM kv export redis/ > redis.json\n",
        action: Action::of::<kv_tree::ExportOptions>(),
    },
    Entry {
        path: "kv import",
        arguments: "[options] DATA",
        summary: "Reads a tree from JSON",
        about: "Writes the keys of a JSON document as kv export prints it. DATA may be the document, @FILE\n\
                or - for standard input:\n\n    $ PROGRAM kv import @redis.json\n",
        action: Action::of::<kv_tree::ImportOptions>(),
    },
    Entry {
        path: "info",
        arguments: "[options]",
        summary: "Shows inner figures of the agent",
        about: "Prints figures about the agent and, on servers, about Raft.\n\n    $ PROGRAM info\n",
        action: Action::of::<info::Options>(),
    },
    Entry {
        path: "maint",
        arguments: "[options]",
        summary: "Switches maintenance mode",
        about: "Takes a node or one of its services out of discovery and back, or shows what is out:\n\n\
                \x20   $ PROGRAM maint -enable -service=web -reason=\"new disk\"\n    $ PROGRAM maint\n",
        action: Action::of::<maint::Options>(),
    },
    Entry {
        path: "members",
        arguments: "[options]",
        summary: "Lists the members of the cluster",
        about: "Prints the members of the cluster as the agent sees them by gossip, with their state.\n\n    $ PROGRAM members -status=failed\n",
        action: Action::of::<members::Options>(),
    },
    group("config", "Manages config entries", "config list -kind=service-defaults"),
    Entry {
        path: "config delete",
        arguments: "[options] -kind KIND -name NAME",
        summary: "Deletes a config entry",
        about: "Removes a configuration entry.\n\n    $ PROGRAM config delete -kind=service-defaults -name=web\n",
        action: Action::of::<config::DeleteOptions>(),
    },
    Entry {
        path: "config list",
        arguments: "[options] -kind KIND",
        summary: "Lists config entries",
        about: "Prints the names of all configuration entries of a kind.\n\n    $ PROGRAM config list -kind=service-defaults\n",
        action: Action::of::<config::ListOptions>(),
    },
    Entry {
        path: "config read",
        arguments: "[options] -kind KIND -name NAME",
        summary: "Shows a config entry",
        about: "Prints a configuration entry as JSON.\n\n    $ PROGRAM config read -kind=proxy-defaults -name=global\n",
        action: Action::of::<config::ReadOptions>(),
    },
    Entry {
        path: "config write",
        arguments: "[options] FILE",
        summary: "Writes a config entry",
        about: "Creates or replaces a configuration entry, which a file defines in HCL or JSON; - is standard\n\
                input.\n\n    $ PROGRAM config write web.hcl\n",
        action: Action::of::<config::WriteOptions>(),
    },
    Entry {
        path: "event",
        arguments: "[options] [PAYLOAD]",
        summary: "Fires a user event",
        about: "Tells all agents of the datacenter something, such as to deploy. Name and payload together may\n\
                have 512 bytes. Events are delivered in no order and kept nowhere:\n\n\
                \x20   $ PROGRAM event -name=deploy -service=web 1.6.2\n",
        action: Action::of::<event::Options>(),
    },
    Entry {
        path: "force-leave",
        arguments: "[options] NAME",
        summary: "Marks a failed member as left",
        about: "Declares that a member which has failed will not come back. It leaves the catalog at once\n\
                instead of after 72 hours. A member that is alive after all comes back by itself:\n\n\
                \x20   $ PROGRAM force-leave web-7\n",
        action: Action::of::<membership::ForceLeaveOptions>(),
    },
    group("intention", "Manages who may talk to whom", "intention check web db"),
    Entry {
        path: "intention check",
        arguments: "[options] SRC DST",
        summary: "Tells whether a connection is allowed",
        about: "Prints Allowed or Denied, and ends with status 0 or 1; misuse ends with 2.\n\n    $ PROGRAM intention check web db\n",
        action: Action::of::<intention::CheckOptions>(),
    },
    Entry {
        path: "intention create",
        arguments: "[options] SRC DST",
        summary: "Creates an intention",
        about: "Lets one service speak to another, or keeps it from that; * stands for any service.\n\n\
                \x20   $ PROGRAM intention create -deny web db\n",
        action: Action::of::<intention::CreateOptions>(),
    },
    Entry {
        path: "intention delete",
        arguments: "[options] SRC DST",
        summary: "Deletes an intention",
        about: "Deletes the intention for a pair of services, or the one with an ID.\n\n    $ PROGRAM intention delete web db\n",
        action: Action::of::<intention::DeleteOptions>(),
    },
    Entry {
        path: "intention get",
        arguments: "[options] SRC DST",
        summary: "Shows an intention",
        about: "Shows the intention for a pair of services, or the one with an ID.\n\n    $ PROGRAM intention get web db\n",
        action: Action::of::<intention::GetOptions>(),
    },
    Entry {
        path: "intention list",
        arguments: "[options]",
        summary: "Lists all intentions",
        about: "Prints all intentions as a table, the most precise first.\n\n    $ PROGRAM intention list\n",
        action: Action::of::<intention::ListOptions>(),
    },
    Entry {
        path: "intention match",
        arguments: "[options] SRC|DST",
        summary: "Lists the intentions of a service",
        about: "Prints the intentions towards a service, or from it, in the order in which they count.\n\n\
                \x20   $ PROGRAM intention match db\n",
        action: Action::of::<intention::MatchOptions>(),
    },
    Entry {
        path: "join",
        arguments: "[options] ADDRESS...",
        summary: "Makes the agent join a cluster",
        about: "Makes a running agent contact others and become a member of their cluster. One that is\n\
                reached is enough; the rest is learned from it:\n\n    $ PROGRAM join 10.0.0.1 server2.example.com:8301\n",
        action: Action::of::<membership::JoinOptions>(),
    },
    Entry {
        path: "keygen",
        arguments: "",
        summary: "Makes a key for gossip",
        about: "Prints a new random key, for encrypt in the configuration or for keyring -install.\n\n    $ PROGRAM keygen\n",
        action: Action::of::<keygen::Options>(),
    },
    Entry {
        path: "keyring",
        arguments: "[options]",
        summary: "Manages the keys of gossip",
        about: "Lists and changes the keys that seal gossip, on all members of all pools. To replace a key,\n\
                install the new one everywhere, use it, and remove the old one:\n\n\
                \x20   $ PROGRAM keyring -install=NEW\n    $ PROGRAM keyring -use=NEW\n    $ PROGRAM keyring -remove=OLD\n",
        action: Action::of::<keyring::Options>(),
    },
    Entry {
        path: "leave",
        arguments: "[options]",
        summary: "Makes the agent leave and stop",
        about: "Makes the agent leave the cluster in good order, and end. The others then know that it has\n\
                not failed; a server is taken out of the Raft group:\n\n    $ PROGRAM leave\n",
        action: Action::of::<membership::LeaveOptions>(),
    },
    Entry {
        path: "completion",
        arguments: "bash|zsh|fish",
        summary: "Prints what makes a shell complete commands",
        about: "Prints lines for the start-up file of a shell. After them, the tab key completes commands and flags.\n\
                The flags -autocomplete-install and -autocomplete-uninstall change the files themselves.\n\n\
                \x20   $ PROGRAM completion bash >> ~/.bashrc\n",
        action: Action::of::<completion::Options>(),
    },
    Entry {
        path: "exec",
        arguments: "[options] [-|COMMAND...]",
        summary: "Runs a command on nodes",
        about: "Runs a command on all nodes, or on those that filters choose, and prints what it says. Agents take\n\
                part that are configured with disable_remote_exec = false. With -, standard input is a script.\n\
                The exit status is 2 if the command failed anywhere.\n\n\
                \x20   $ PROGRAM exec uptime\n    $ PROGRAM exec -service='^web$' - < restart.sh\n",
        action: Action::of::<exec::Options>(),
    },
    Entry {
        path: "lock",
        arguments: "[options] PREFIX CHILD...",
        summary: "Runs a command under a lock",
        about: "Waits for the lock at PREFIX, runs a command, and gives the lock back. All who use the same prefix\n\
                exclude each other, whatever agent they ask; with -n, up to so many run at a time. The command is\n\
                asked to end, and then killed, before the lock can be lost; signals are passed on to it. It finds\n\
                CONSUL_LOCK_HELD=true in its environment.\n\n\
                \x20   $ PROGRAM lock jobs/nightly ./backup.sh\n    $ PROGRAM lock -n=3 -timeout=30s jobs/render 'make all'\n",
        action: Action::of::<lock::Options>(),
    },
    group("operator", "Manages the servers of a cluster", "operator raft list-peers"),
    group("operator autopilot", "Manages the care for servers", "operator autopilot state"),
    Entry {
        path: "operator autopilot get-config",
        arguments: "[options]",
        summary: "Shows its configuration",
        about: "Prints how the leader looks after the servers.\n\n    $ PROGRAM operator autopilot get-config\n",
        action: Action::of::<autopilot::GetOptions>(),
    },
    Entry {
        path: "operator autopilot set-config",
        arguments: "[options]",
        summary: "Changes its configuration",
        about: "Changes what flags name and leaves the rest. All servers follow at once:\n\n\
                \x20   $ PROGRAM operator autopilot set-config -server-stabilization-time=30s\n",
        action: Action::of::<autopilot::SetOptions>(),
    },
    Entry {
        path: "operator autopilot state",
        arguments: "[options]",
        summary: "Shows how the servers are",
        about: "Prints what the leader knows about the health of every server.\n\n    $ PROGRAM operator autopilot state\n",
        action: Action::of::<autopilot::StateOptions>(),
    },
    group("operator raft", "Manages the Raft group", "operator raft list-peers"),
    Entry {
        path: "operator raft list-peers",
        arguments: "[options]",
        summary: "Lists its members",
        about: "Prints the servers of the Raft group. When there is no leader, -stale asks any server.\n\n    $ PROGRAM operator raft list-peers\n",
        action: Action::of::<raft::ListOptions>(),
    },
    Entry {
        path: "operator raft remove-peer",
        arguments: "[options]",
        summary: "Removes a member",
        about: "Removes a server from the Raft group that will not come back. Autopilot and force-leave do\n\
                that too, more carefully:\n\n    $ PROGRAM operator raft remove-peer -id=ID\n",
        action: Action::of::<raft::RemoveOptions>(),
    },
    Entry {
        path: "operator raft repair",
        arguments: "[options]",
        summary: "Lets a server with a damaged log begin anew",
        about: "Puts the log, the state and the identity of a stopped server aside, so that it joins its cluster as a\n\
                new server. For a server that refuses to start because its log is damaged; nothing is deleted:\n\n\
                \x20   $ PROGRAM operator raft repair -data-dir=DIR\n",
        action: Action::Run { command: repair::command, run: repair::run },
    },
    Entry {
        path: "operator raft transfer-leader",
        arguments: "[options]",
        summary: "Makes another server the leader",
        about: "Hands leadership over, without an election timeout, such as before the leader's machine is\n\
                stopped:\n\n    $ PROGRAM operator raft transfer-leader\n",
        action: Action::of::<raft::TransferOptions>(),
    },
    group("operator usage", "Counts what is registered", "operator usage instances"),
    Entry {
        path: "operator usage instances",
        arguments: "[options]",
        summary: "Counts services and their instances",
        about: "Prints how many services and instances are registered.\n\n    $ PROGRAM operator usage instances\n",
        action: Action::of::<usage::InstancesOptions>(),
    },
    Entry {
        path: "rtt",
        arguments: "[options] NODE [NODE]",
        summary: "Estimates the round trip between nodes",
        about: "Prints how long a packet from one node to another and back is believed to take, from the\n\
                network coordinates that agents find for themselves. The second node is the agent's own\n\
                unless it is named. With -wan, between servers of any datacenters:\n\n\
                \x20   $ PROGRAM rtt web-1 web-2\n    $ PROGRAM rtt -wan server-1.dc1 server-1.dc2\n",
        action: Action::of::<rtt::Options>(),
    },
    group("services", "Registers and removes services of an agent", "services register -name=web -port=8080"),
    Entry {
        path: "services deregister",
        arguments: "[options] [FILE...]",
        summary: "Removes services from the agent",
        about: "Removes the services that files define, or the one with an ID:\n\n    $ PROGRAM services deregister -id=web\n",
        action: Action::of::<services::DeregisterOptions>(),
    },
    Entry {
        path: "services register",
        arguments: "[options] [FILE...]",
        summary: "Registers services with the agent",
        about: "Registers the services that files define (JSON or HCL, as in a configuration directory),\n\
                or one that flags describe:\n\n    $ PROGRAM services register -name=web -port=8080\n    $ PROGRAM services register web.json\n",
        action: Action::of::<services::RegisterOptions>(),
    },
    Entry {
        path: "debug",
        arguments: "[options]",
        summary: "Collects an archive for finding faults",
        about: "Collects for a while what the agent tells about itself, its machine and its cluster, with metrics and\n\
                log, and packs it into one file. What was collected before an interruption is kept. Tokens and\n\
                keys are not in it, but look at it before you give it away:\n\n\
                \x20   $ PROGRAM debug -duration=1m -interval=20s\n    $ PROGRAM debug -capture=agent -capture=logs -output=/tmp/case\n",
        action: Action::of::<debug::Options>(),
    },
    Entry {
        path: "doctor",
        arguments: "[options]",
        summary: "Says what is wrong, and what to do",
        about: "Looks at an agent's configuration, ports, data directory, certificates and clock, at those whom it is\n\
                to join, and, where one runs, at what it says about its servers. Changes nothing. The exit status is\n\
                1 if something does not work:\n\n\
                \x20   $ PROGRAM doctor -config-dir=/etc/proconsul.d\n    $ PROGRAM doctor -http-addr=127.0.0.1:8500 -format=json\n",
        action: Action::of::<doctor::Options>(),
    },
    Entry {
        path: "monitor",
        arguments: "[options]",
        summary: "Shows the agent's log",
        about: "Prints the agent's log as it comes, at a level of your choice, until you interrupt it:\n\n    $ PROGRAM monitor -log-level=debug\n",
        action: Action::of::<monitor::Options>(),
    },
    Entry {
        path: "reload",
        arguments: "",
        summary: "Makes the agent read its configuration again",
        about: "Does what SIGHUP does: services, checks and settings that may change while an agent runs are taken\n\
                over from its files. Files with a mistake in them change nothing:\n\n    $ PROGRAM reload\n",
        action: Action::of::<reload::Options>(),
    },
    group("tls", "Makes certificates", "tls ca create"),
    group("tls ca", "Makes certificate authorities", "tls ca create"),
    Entry {
        path: "tls ca create",
        arguments: "[options]",
        summary: "Makes a certificate authority",
        about: "Makes an authority for the certificates of agents and commands, as the files DOMAIN-agent-ca.pem and\n\
                DOMAIN-agent-ca-key.pem. Keep the key to yourself:\n\n    $ PROGRAM tls ca create\n",
        action: Action::of::<tls::CaCreateOptions>(),
    },
    group("tls cert", "Makes certificates of agents", "tls cert create -server -dc=dc1"),
    Entry {
        path: "tls cert create",
        arguments: "[options]",
        summary: "Makes a certificate",
        about: "Makes a certificate for servers, client agents or commands and signs it with the authority's key. The\n\
                files are named after datacenter, kind and domain, with a number:\n\n\
                \x20   $ PROGRAM tls cert create -server -dc=dc1\n    $ PROGRAM tls cert create -client\n    $ PROGRAM tls cert create -cli\n",
        action: Action::of::<tls::CertCreateOptions>(),
    },
    Entry {
        path: "tls cert renew",
        arguments: "[options]",
        summary: "Makes another certificate for a key",
        about: "Makes a certificate for a key that there is already, such as before the old certificate ends, and signs\n\
                it with the authority's key. The file is named as those of tls cert create, with the next number:\n\n\
                \x20   $ PROGRAM tls cert renew -server -existingkey=dc1-server-consul-0-key.pem\n",
        action: Action::of::<tls::CertRenewOptions>(),
    },
    Entry {
        path: "validate",
        arguments: "[options] FILE_OR_DIRECTORY...",
        summary: "Checks configuration files",
        about: "Reads files and directories as an agent would, without starting it, and says what is wrong\n\
                with them:\n\n    $ PROGRAM validate /etc/proconsul.d\n",
        action: Action::of::<validate::Options>(),
    },
    Entry {
        path: "configtest",
        arguments: "[options] FILE_OR_DIRECTORY...",
        summary: "Old name of validate",
        about: "Does what validate does.\n\n    $ PROGRAM configtest /etc/proconsul.d\n",
        action: Action::of::<validate::Options>(),
    },
    Entry {
        path: "watch",
        arguments: "[options] [CHILD...]",
        summary: "Watches for changes",
        about: "Prints a state as JSON, or runs a program whenever it differs. The program reads the state from its\n\
                standard input, and finds its index in CONSUL_INDEX. Agents watch, too: see watches in their\n\
                configuration.\n\n\
                \x20   $ PROGRAM watch -type=key -key=config/app\n    $ PROGRAM watch -type=service -service=web -passingonly=true ./render.sh\n",
        action: Action::of::<watch::Options>(),
    },
    Entry {
        path: "version",
        arguments: "[options]",
        summary: "Prints the version",
        about: "Prints the version of this program. For scripts, as JSON:\n\n    $ PROGRAM version -format=json\n",
        action: Action::of::<version::Options>(),
    },
];
