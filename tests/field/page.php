<?php
// A page of a PHP site that publishes one message with the documented snippet; run by php-fpm.
require $_SERVER['NSQ_SNIPPET'];
nsq_publish($_GET['topic'], $_GET['body'], 0, $_SERVER['NSQ_URL']);
echo 'accepted';
