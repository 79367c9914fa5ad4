// SPDX-License-Identifier: Apache-2.0
//
// Determines when a failed request is repeated.

#ifndef MSB_SRC_REGISTRY_RETRY_H_
#define MSB_SRC_REGISTRY_RETRY_H_

#include <chrono>
#include <optional>
#include <random>
#include <string_view>

#include "src/registry/http_client.h"

namespace msb::registry {

// The longest wait that a registry may ask for. If it asks for more, the request fails.
inline constexpr std::chrono::seconds kLongestRetryAfter = std::chrono::minutes(5);

// Returns true if the same request may succeed later: if the connection failed, or the status is
// 408, 429 or 5xx.
bool IsTransient(const HttpResponse& response);

// Returns true if the registry refuses requests for now, usually because there are too many: the
// status is 429 or 503.
bool IsThrottled(const HttpResponse& response);

// Returns the time to wait before a repetition, the first of which has the number 0: about 500 ms,
// and twice as long for each further one, up to 30 s. It varies by a quarter in both directions, so
// that clients that failed at the same time do not retry at the same time.
std::chrono::milliseconds BackoffDelay(int repetition, std::minstd_rand& random);

// Parses the value of a Retry-After header: a number of seconds, or an HTTP date, from which now is
// subtracted. A date in the past becomes 0. Returns nullopt if the value is malformed.
std::optional<std::chrono::seconds> ParseRetryAfter(std::string_view value,
                                                    std::chrono::sys_seconds now);

}  // namespace msb::registry

#endif  // MSB_SRC_REGISTRY_RETRY_H_
