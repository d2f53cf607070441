FROM busybox
ARG SECRET_PASSPHRASE
ENV SUPER_Secret=foo password=bar
ARG super_duper_secret_token=foo auth=bar
ENV apikey=bar sunflower=foo git_key= PUBLIC_KEY= MONKEY=1 keys=3 credentials=4 MY_PWORD=5 PASSWD=6 AUTHOR=1
ARG public_token
