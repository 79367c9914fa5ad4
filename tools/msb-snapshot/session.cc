#include "tools/msb-snapshot/session.h"

#include <fmt/format.h>

#include <cstdio>
#include <set>

#include "tools/msb-snapshot/exit_code.h"
#include "tools/msb-snapshot/interrupt.h"
#include "tools/msb-snapshot/terminal.h"
#include "tools/msb-snapshot/text.h"

namespace msb::program {
namespace {

void PrintDocument(const Json& document) {
  Put(fmt::format("{}\n", document.dump(2, ' ', false, Json::error_handler_t::replace)));
}

int CodeOf(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  if (known == nullptr) return ExitCodeOf(ErrorKind::kInternal);
  if (known->kind() == ErrorKind::kCancelled && InterruptingSignal() != 0) {
    return kSignalBase + InterruptingSignal();
  }
  return ExitCodeOf(known->kind());
}

}  // namespace

Json ErrorDocument(const std::exception& error) {
  const auto* known = dynamic_cast<const Error*>(&error);
  Json document;
  document["kind"] = ErrorKindName(known == nullptr ? ErrorKind::kInternal : known->kind());
  document["message"] = error.what();
  if (known != nullptr && known->kind() == ErrorKind::kIO) document["os_error"] = known->os_error();
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
    config.log = log;
    client_.emplace(std::move(config));
  }
  return *client_;
}

Context Session::context() {
  const Context ctx = Context::Background().WithCancel(Interrupted());
  if (options.quiet || options.json) return ctx;
  return ctx.WithProgress([this](const Progress& progress) { bar_.Update(progress); });
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
                  Printable(message, true)),
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
      if (!options.json) Fail(e);
      if (InterruptingSignal() != 0) break;
    }
  }
  if (options.json) PrintDocument({{"results", std::move(results)}});
  if (failures.empty()) return kSuccess;
  if (InterruptingSignal() != 0) return kSignalBase + InterruptingSignal();
  return failures.size() == 1 ? *failures.begin() : kFailure;
}

int Session::Fail(const std::exception& error) {
  if (options.json) {
    PrintDocument({{"error", ErrorDocument(error)}});
  } else {
    const bool interrupted = InterruptingSignal() != 0;
    Tell(Color::kRed, "error", interrupted ? "cancelled; nothing was changed" : error.what());
  }
  return CodeOf(error);
}

}  // namespace msb::program
