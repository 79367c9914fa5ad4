// SPDX-License-Identifier: Apache-2.0

#include "tools/msb-snapshot/session.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <set>

#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/interrupt.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"
#include "tools/msb-snapshot/wording.h"

namespace msb::program {
namespace {

void PrintDocument(const Json& document) {
  // Characters other than ASCII are escaped, so that none of them can control a terminal.
  Put(fmt::format("{}\n", document.dump(2, ' ', true, Json::error_handler_t::replace)));
}

bool IsOutOfMemory(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr;
}

ErrorKind KindOf(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  if (known != nullptr) return known->kind();
  return IsOutOfMemory(error) ? ErrorKind::kIO : ErrorKind::kInternal;
}

std::string_view MessageOf(const std::exception& error) {
  if (!IsOutOfMemory(error)) return error.what();
  return "not enough memory: end other programs, or raise the limit of this one (ulimit -v)";
}

// Returns whether a signal cancelled the call that threw error.
bool IsInterruption(const std::exception& error) {
  return KindOf(error) == ErrorKind::kCancelled && InterruptingSignal() != 0;
}

int CodeOf(const std::exception& error) {
  return IsInterruption(error) ? kSignalBase + InterruptingSignal() : ExitCodeOf(KindOf(error));
}

// Returns a hint for this error. Returns an empty string if the message is sufficient.
std::string_view HintFor(const std::exception& error) {
  switch (KindOf(error)) {
    case ErrorKind::kSnapshotNotFound:
      // Gives no hint if a registry or an archive lacks the snapshot.
      if (!std::string_view(error.what()).starts_with("no snapshot ")) return {};
      return "to see the snapshots of this home: msb-snapshot list";
    case ErrorKind::kSandboxNotFound:
      return "to see the sandboxes of this home: msb-snapshot sandbox list";
    default:
      return {};
  }
}

}  // namespace

Json ErrorDocument(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  Json document;
  document["kind"] = ErrorKindName(KindOf(error));
  document["message"] = InWordsOfProgram(std::string(MessageOf(error)));
  if (KindOf(error) == ErrorKind::kIO) {
    document["os_error"] = known != nullptr ? known->os_error() : ENOMEM;
  }
  return document;
}

Config Session::ClientConfig() const {
  Config config = Config::FromEnvironment();
  if (!options.home.empty()) config.home = options.home;
  if (!options.backend.empty()) config.backend = options.backend;
  config.qemu = qemu;
  config.upper_format = upper_format;
  return config;
}

const Client& Session::client() {
  if (!client_) {
    Config config = ClientConfig();
    config.log = [this](std::string_view message) {
      if (IsNew(message)) log(message);
    };
    client_.emplace(std::move(config));
  }
  return *client_;
}

bool Session::IsNew(std::string_view warning) {
  const std::lock_guard lock(mutex_);
  return warnings_.emplace(warning).second;
}

Context Session::context() {
  Context ctx = Context::Background().WithCancel(Interrupted());
  if (options.quiet || options.json) return ctx;
  return ctx.WithProgress([this](const Progress& progress) { bar_.Update(progress); });
}

std::string Session::BackendName() {
  const auto* name = std::get_if<std::string>(&client().config().backend);
  return name == nullptr ? "" : *name;
}

void Session::Print(const Report& report) {
  bar_.Clear();
  if (options.json) {
    PrintDocument(report.document);
  } else if (!options.quiet) {
    Put(report.text);
  }
}

void Session::Tell(Color color, std::string_view kind, std::string_view message) {
  bar_.Clear();
  Put(fmt::format("{} {}\n", Colored(color, fmt::format("{}:", kind), Stream::kError),
                  Printable(InWordsOfProgram(std::string(message)))),
      Stream::kError);
}

int Session::ForEach(const std::vector<std::string>& names,
                     const std::function<Report(const std::string& name)>& work) {
  Json results = Json::array();
  std::set<int> failures;
  for (const std::string& name : names) {
    try {
      const Report report = work(name);
      bar_.Clear();
      if (!options.json && !options.quiet) Put(report.text);
      results.push_back(report.document);
    } catch (const Error& e) {
      failures.insert(CodeOf(e));
      results.push_back({{"name", name}, {"error", ErrorDocument(e)}});
      Explain(e, fmt::format("cancelled at {}", name));
      if (IsInterruption(e)) break;
    }
  }
  if (options.json) PrintDocument({{"results", std::move(results)}});
  if (failures.empty()) return kSuccess;
  if (const int signal = kSignalBase + InterruptingSignal(); failures.contains(signal)) {
    return signal;
  }
  return failures.size() == 1 ? *failures.begin() : kFailure;
}

// With --json, errors are part of the document.
void Session::Explain(const std::exception& error, std::string_view when_cancelled) {
  if (options.json) return;
  Tell(Color::kRed, "error", IsInterruption(error) ? when_cancelled : MessageOf(error));
  const std::string_view hint = HintFor(error);
  if (!hint.empty() && !options.quiet) Tell(Color::kBold, "hint", hint);
}

int Session::ExplainFailure(const std::exception& error) {
  Explain(error, "cancelled");
  return CodeOf(error);
}

int Session::Fail(const std::exception& error) {
  if (options.json) PrintDocument({{"error", ErrorDocument(error)}});
  return ExplainFailure(error);
}

}  // namespace msb::program
