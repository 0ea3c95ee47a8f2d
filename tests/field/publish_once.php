<?php
// One call of the documented snippet: the body comes from standard input; prints "published" or what was thrown.
// Arguments: the snippet, the URL, the topic, the delay in ms.
[, $snippet, $url, $topic, $deferMs] = $argv;
require $snippet;
try {
    nsq_publish($topic, stream_get_contents(STDIN), (int) $deferMs, $url);
    echo "published\n";
} catch (RuntimeException $failure) {
    echo $failure->getMessage(), "\n";
}
