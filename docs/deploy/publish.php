<?php
/**
 * Publish one message to NSQ over HTTP; returns once a node has answered that it has it.
 *
 * A request that gets no answer, or a 5xx, is sent once more: the message may then be in the topic twice, and consumers
 * have to bear that. The URL is nginx's (docs/deploy/nginx.conf) or one node's.
 *
 * @param string $topic   made by its first message
 * @param string $body    1 byte to 1 MiB, any bytes
 * @param int    $deferMs deliver it this many milliseconds from now
 * @throws RuntimeException it was refused, and not published; or both attempts failed, and it may have been published
 */
function nsq_publish(string $topic, string $body, int $deferMs = 0, string $url = 'http://127.0.0.1:8080'): void
{
    $query = http_build_query($deferMs > 0 ? ['topic' => $topic, 'defer' => $deferMs] : ['topic' => $topic]);
    for ($attempt = 1;; $attempt++) {
        $request = curl_init("$url/pub?$query");
        curl_setopt_array($request, [
            CURLOPT_POSTFIELDS => $body,
            // an empty Expect, or curl waits for a "100 Continue" before a long body; for older ones that is 1 kB
            CURLOPT_HTTPHEADER => ['Content-Type: application/octet-stream', 'Expect:'],
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_CONNECTTIMEOUT_MS => 1000,
            CURLOPT_TIMEOUT_MS => 12000, // longer than nginx takes to try both nodes
        ]);
        $answer = curl_exec($request);
        $status = curl_getinfo($request, CURLINFO_RESPONSE_CODE);
        $error = curl_error($request);
        unset($request); // closes the connection
        if ($status === 200) {
            return;
        }
        $refused = $status >= 400 && $status < 500; // it would be refused again
        if ($refused || $attempt === 2) {
            throw new RuntimeException("NSQ: publish to $topic failed: " . ($error ?: "$status $answer"));
        }
        usleep(random_int(100000, 300000)); // time for nginx to find out who is alive
    }
}
